package ovs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// op is one operation of a transaction (RFC 7047, section 5.2).
type op map[string]any

// port is one of the switch.
type port struct {
	Name, Bridge, Datapath  string
	InterfaceID, MAC, Owner string
}

// deadVLAN is what nothing leaves (vif_plug_ovs/constants.py, DEAD_VLAN).
const deadVLAN = 4095

// trunkPrefix is of bridges that are one trunk's (TRUNK_BR_PREFIX).
const trunkPrefix = "tbr-"

// attempts is how often a transaction is made again when somebody was faster.
const attempts = 5

// again makes f until it is not too late.
func again(f func() error) error {
	var err error
	for range attempts {
		if err = f(); !errors.Is(err, errChanged) {
			return err
		}
	}
	return err
}

// ensure makes a bridge and the port in it, or mends the port. isolate cuts a
// new port off until an agent gives it a network.
func (c *client) ensure(ctx context.Context, p port, isolate bool) error {
	err := again(func() error {
		found, err := c.transact(ctx,
			op{"op": "select", "table": "Bridge", "where": []any{}, "columns": []string{"_uuid", "name", "ports"}},
			op{"op": "select", "table": "Port", "where": is("name", p.Name), "columns": []string{"_uuid"}},
		)
		if err != nil {
			return err
		}
		ops, err := p.ensureOps(found[0].Rows, found[1].Rows, isolate)
		if err != nil {
			return err
		}
		_, err = c.transact(ctx, ops...)
		return err
	})
	if err != nil {
		return fmt.Errorf("port %s of bridge %s: %w", p.Name, p.Bridge, err)
	}
	return nil
}

// ensureOps is the transaction that makes it so from what there is.
func (p port) ensureOps(bridges, ports []map[string]any, isolate bool) ([]op, error) {
	var ops []op
	there, in := false, ""
	id := ""
	if len(ports) > 0 {
		id = uuidOf(ports[0]["_uuid"])
	}
	for _, b := range bridges {
		name, _ := b["name"].(string)
		there = there || name == p.Bridge
		if id != "" && holds(b["ports"], id) {
			in = name
		}
	}
	if !there {
		ops = append(ops, addBridge(p.Bridge, p.Datapath)...)
	}
	switch {
	case id == "":
		ops = append(ops, p.insert(isolate)...)
	case in != p.Bridge:
		return nil, fmt.Errorf("it is a port of bridge %q: %w", in, errdefs.ErrConflict)
	default:
		ops = append(ops, p.update(id)...)
	}
	return append(ops, op{"op": "comment", "comment": "gantry: port " + p.InterfaceID + " of " + p.Owner}), nil
}

func addBridge(name, datapath string) []op {
	return []op{
		none("Bridge", name),
		{"op": "insert", "table": "Interface", "uuid-name": "bridge_interface", "row": op{"name": name, "type": "internal"}},
		{"op": "insert", "table": "Port", "uuid-name": "bridge_port", "row": op{"name": name, "interfaces": named("bridge_interface")}},
		{"op": "insert", "table": "Bridge", "uuid-name": "bridge", "row": op{"name": name, "ports": named("bridge_port"), "datapath_type": datapath}},
		{"op": "mutate", "table": "Open_vSwitch", "where": []any{}, "mutations": []any{[]any{"bridges", "insert", named("bridge")}}},
	}
}

func (p port) insert(isolate bool) []op {
	row := op{"name": p.Name, "interfaces": named("interface")}
	if isolate {
		row["tag"] = deadVLAN
	}
	return []op{
		none("Port", p.Name),
		{"op": "insert", "table": "Interface", "uuid-name": "interface", "row": op{"name": p.Name, "external_ids": pairs(p.ids())}},
		{"op": "insert", "table": "Port", "uuid-name": "port", "row": row},
		{"op": "mutate", "table": "Bridge", "where": is("name", p.Bridge), "mutations": []any{[]any{"ports", "insert", named("port")}}},
	}
}

// update says what the port is, and keeps what others have written beside it.
func (p port) update(id string) []op {
	keys := []any{}
	for _, kv := range p.ids() {
		keys = append(keys, kv[0])
	}
	return []op{
		{"op": "wait", "table": "Port", "where": []any{[]any{"_uuid", "==", []any{"uuid", id}}}, "columns": []string{"name"}, "until": "==", "rows": []any{op{"name": p.Name}}, "timeout": 0},
		{"op": "mutate", "table": "Interface", "where": is("name", p.Name), "mutations": []any{
			[]any{"external_ids", "delete", []any{"set", keys}},
			[]any{"external_ids", "insert", pairs(p.ids())},
		}},
	}
}

// ids are the external_ids that agents look for (create_ovs_vif_port).
func (p port) ids() [][2]string {
	return [][2]string{{"iface-id", p.InterfaceID}, {"iface-status", "active"}, {"attached-mac", p.MAC}, {"vm-uuid", p.Owner}}
}

// remove takes a port out of whatever bridge it is in; absent is nil. A trunk's
// bridge goes with it.
func (c *client) remove(ctx context.Context, name string) error {
	err := again(func() error {
		found, err := c.transact(ctx,
			op{"op": "select", "table": "Bridge", "where": []any{}, "columns": []string{"_uuid", "name", "ports"}},
			op{"op": "select", "table": "Port", "where": is("name", name), "columns": []string{"_uuid"}},
		)
		if err != nil || len(found[1].Rows) == 0 {
			return err
		}
		id := uuidOf(found[1].Rows[0]["_uuid"])
		var ops []op
		for _, b := range found[0].Rows {
			if !holds(b["ports"], id) {
				continue
			}
			bridge, _ := b["name"].(string)
			ops = append(ops, op{"op": "mutate", "table": "Bridge", "where": is("name", bridge), "mutations": []any{[]any{"ports", "delete", []any{"uuid", id}}}})
			if strings.HasPrefix(bridge, trunkPrefix) {
				ops = append(ops, op{"op": "mutate", "table": "Open_vSwitch", "where": []any{}, "mutations": []any{[]any{"bridges", "delete", []any{"uuid", uuidOf(b["_uuid"])}}}})
			}
		}
		if len(ops) == 0 {
			return nil
		}
		_, err = c.transact(ctx, ops...)
		return err
	})
	if err != nil {
		return fmt.Errorf("remove port %s: %w", name, err)
	}
	return nil
}

// datapaths are those of the bridges that there are, by name.
func (c *client) datapaths(ctx context.Context) (map[string]string, error) {
	found, err := c.transact(ctx, op{"op": "select", "table": "Bridge", "where": []any{}, "columns": []string{"name", "datapath_type"}})
	if err != nil {
		return nil, err
	}
	kinds := map[string]string{}
	for _, b := range found[0].Rows {
		name, _ := b["name"].(string)
		kinds[name], _ = b["datapath_type"].(string)
	}
	return kinds, nil
}

// none fails the transaction with errChanged when a row of that name is there.
func none(table, name string) op {
	return op{"op": "wait", "table": table, "where": is("name", name), "columns": []string{"name"}, "until": "==", "rows": []any{}, "timeout": 0}
}

func is(column, value string) []any { return []any{[]any{column, "==", value}} }
func named(id string) []any         { return []any{"named-uuid", id} }

func pairs(kv [][2]string) []any {
	all := []any{}
	for _, p := range kv {
		all = append(all, []any{p[0], p[1]})
	}
	return []any{"map", all}
}

// uuidOf reads ["uuid", "…"]; "" if it is none.
func uuidOf(v any) string {
	pair, _ := v.([]any)
	if len(pair) != 2 || pair[0] != "uuid" {
		return ""
	}
	id, _ := pair[1].(string)
	return id
}

// holds reports whether a value, which is one uuid or a set, has this one.
func holds(v any, id string) bool {
	if uuidOf(v) == id {
		return true
	}
	pair, _ := v.([]any)
	if len(pair) != 2 || pair[0] != "set" {
		return false
	}
	all, _ := pair[1].([]any)
	for _, one := range all {
		if uuidOf(one) == id {
			return true
		}
	}
	return false
}
