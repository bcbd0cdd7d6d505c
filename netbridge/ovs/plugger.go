package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/keylock"
	"github.com/gantry-project/gantry/netbridge"
)

// Options of New.
type Options struct {
	// Connection is the database, as os-vif's ovsdb_connection says it:
	// tcp:HOST:PORT or unix:PATH.
	Connection string
	// Timeout is how long it may take to answer; 0 is for ever.
	Timeout time.Duration
	// Isolate cuts new ports off until the agent has given them their network.
	Isolate bool
	// Dir has the records of what instances have; it is made when it is missing.
	Dir string
	// HostNetNS is that of netbridge.Options.
	HostNetNS string
}

// plugger adds ports of the switch to what another one does.
type plugger struct {
	netbridge.Plugger // counters and owners are those of host ends

	o        Options
	database client
	links    links
	locks    keylock.Map[string] // by owner
}

// links makes what a hybrid port needs beside its host end.
type links interface {
	// ensure makes the bridge and the pair from it to the switch.
	ensure(owner, id string, mtu int) error
	// software has the kernel finish checksums before packets get to a switch
	// in user space, which passes them on as they are: of what passes a device of
	// the host, or with a namespace of what is sent at its other end there.
	software(netns, device string) error
	// remove takes away what is the owner's of them.
	remove(owner, id string) error
}

// New returns a Plugger that does what inner does, and knows
// netbridge.AttachOVS. Such plans are refused with errdefs.ErrUnavailable, and
// nothing has changed, when the database does not answer; plans without ports
// of the switch do not ask it. A Connection that cannot be is
// errdefs.ErrInvalid.
func New(inner netbridge.Plugger, o Options) (netbridge.Plugger, error) {
	network, address, err := parseConnection(o.Connection)
	if err != nil {
		return nil, err
	}
	if o.Dir == "" {
		return nil, fmt.Errorf("open vswitch: no directory: %w", errdefs.ErrInvalid)
	}
	return &plugger{
		Plugger: inner, o: o, database: client{network: network, address: address, timeout: o.Timeout}, links: newLinks(o.HostNetNS),
	}, nil
}

// record is what an owner has, by port of the switch.
type record map[string]entry

type entry struct {
	// ID is of the interface, Hybrid says that it has a bridge of its own.
	ID     string `json:"id"`
	Hybrid bool   `json:"hybrid,omitempty"`
}

// Set implements netbridge.Plugger.
func (p *plugger) Set(ctx context.Context, plan netbridge.Plan) error {
	if err := netbridge.Validate(plan); err != nil {
		return err
	}
	inner, wanted := translate(plan)
	unlock, err := p.locks.Lock(ctx, plan.Owner)
	if err != nil {
		return fmt.Errorf("set network of %s: %w", plan.Owner, err)
	}
	defer unlock()
	have, err := p.read(plan.Owner)
	if err != nil {
		return fmt.Errorf("set network of %s: %w", plan.Owner, err)
	}
	if len(have) == 0 && len(wanted) == 0 {
		return p.Plugger.Set(ctx, inner)
	}
	if err := p.set(ctx, inner, have, wanted); err != nil {
		return fmt.Errorf("set network of %s: %w", plan.Owner, err)
	}
	return nil
}

// wish is a port of the switch that a plan has.
type wish struct {
	port
	entry

	mtu int
}

// userSpace is the datapath that is no part of the kernel.
const userSpace = "netdev"

func (p *plugger) set(ctx context.Context, inner netbridge.Plan, have record, wanted map[string]wish) error {
	if len(wanted) > 0 {
		kinds, err := p.database.datapaths(ctx)
		if err != nil {
			return public(err)
		}
		for name, w := range wanted {
			if kind, there := kinds[w.Bridge]; there { // OVN does not say it with the port
				w.Datapath = kind
				wanted[name] = w
			}
		}
	}
	all := maps.Clone(have)
	if all == nil {
		all = record{}
	}
	for name, w := range wanted {
		all[name] = w.entry
	}
	if err := p.write(inner.Owner, all); err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, stays := wanted[name]; stays {
			continue
		}
		err := p.remove(ctx, inner.Owner, name, have[name])
		if errs = append(errs, err); err == nil {
			delete(all, name)
		}
	}
	names := slices.Sorted(maps.Keys(wanted))
	for _, name := range names {
		if w := wanted[name]; w.Hybrid {
			errs = append(errs, p.links.ensure(inner.Owner, w.ID, w.mtu))
		}
	}
	errs = append(errs, p.Plugger.Set(ctx, inner))
	for _, name := range names {
		errs = append(errs, p.connect(ctx, inner.NetNS, wanted[name]))
	}
	return errors.Join(append(errs, p.write(inner.Owner, all))...)
}

// connect makes a port of what is there now.
func (p *plugger) connect(ctx context.Context, netns string, w wish) error {
	if w.Datapath == userSpace {
		device := w.Name
		if w.Hybrid {
			netns = ""
			_, device, _ = netbridge.HybridNames(w.ID)
		}
		if err := p.links.software(netns, device); err != nil {
			return err
		}
	}
	return public(p.database.ensure(ctx, w.port, p.o.Isolate))
}

func (p *plugger) remove(ctx context.Context, owner, name string, e entry) error {
	err := public(p.database.remove(ctx, name))
	if e.Hybrid {
		err = errors.Join(err, p.links.remove(owner, e.ID))
	}
	return err
}

// public gives an error of the database words for the tenant.
func public(err error) error {
	if errors.Is(err, errdefs.ErrUnavailable) {
		return errdefs.WithPublic(err, "The Open vSwitch database of the host does not answer.")
	}
	return err
}

// translate is the plan for who knows nothing of the switch, and the ports.
func translate(plan netbridge.Plan) (netbridge.Plan, map[string]wish) {
	wanted := map[string]wish{}
	plan.Interfaces = slices.Clone(plan.Interfaces)
	for n := range plan.Interfaces {
		i := &plan.Interfaces[n]
		if i.Attachment != netbridge.AttachOVS {
			continue
		}
		w := wish{
			port:  port{Name: i.HostName, Bridge: i.OVS.Bridge, Datapath: i.OVS.Datapath, InterfaceID: i.OVS.InterfaceID, MAC: i.MAC, Owner: plan.Owner},
			entry: entry{ID: i.ID, Hybrid: i.OVS.Hybrid}, mtu: i.MTU,
		}
		if w.Datapath == "" {
			w.Datapath = "system"
		}
		i.Attachment = netbridge.AttachNone
		if w.Hybrid {
			i.Attachment = netbridge.AttachBridge
			i.Bridge, _, w.Name = netbridge.HybridNames(i.ID)
		}
		wanted[w.Name] = w
	}
	return plan, wanted
}

func (p *plugger) file(owner string) string { return filepath.Join(p.o.Dir, owner+".json") }

func (p *plugger) read(owner string) (record, error) {
	text, err := os.ReadFile(p.file(owner))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record of ports: %w", err)
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("record of ports %s: %w: %w", p.file(owner), err, errdefs.ErrCorrupt)
	}
	return r, nil
}

// write keeps a record; an empty one is none.
func (p *plugger) write(owner string, r record) error {
	if len(r) == 0 {
		if err := os.Remove(p.file(owner)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("record of ports: %w", err)
		}
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of ports: %w", err)
	}
	if err := os.MkdirAll(p.o.Dir, 0o700); err != nil {
		return fmt.Errorf("record of ports: %w", err)
	}
	if err := atomicfile.Replace(p.file(owner), text, 0o600); err != nil {
		return fmt.Errorf("record of ports: %w", err)
	}
	return nil
}
