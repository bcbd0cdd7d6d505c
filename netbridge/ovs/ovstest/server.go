// Package ovstest is a small database server of Open vSwitch in memory, for
// tests: the operations and tables that plugging needs, as RFC 7047 has them.
// Rows that nothing refers to go away, names are unique, a transaction is made
// whole or not at all.
package ovstest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

// Server is one database. Fields may be changed while nobody asks.
type Server struct {
	// Connection is where it listens, as ovsdb_connection says it.
	Connection string
	// Silent never answers.
	Silent bool
	// Answer is sent instead of any answer, if it is not empty.
	Answer string

	mu     sync.Mutex
	tables tables
	before func() // of the next transaction
	asked  int
}

type (
	row    map[string]any
	tables map[string]map[string]row // by table and uuid
)

// New starts a server, which ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db.sock")
	l, err := net.Listen("unix", path) //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := &Server{Connection: "unix:" + path, tables: tables{
		"Open_vSwitch": {uuid.NewString(): row{"bridges": set()}}, "Bridge": {}, "Port": {}, "Interface": {},
	}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

// Asked is how many transactions there were.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Between runs f before the second transaction from now: between a look and the
// change that follows it.
func (s *Server) Between(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = func() { s.before = f }
}

// Ports shows the switch: "bridge port key=value…", sorted.
func (s *Server) Ports() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []string{}
	for _, b := range s.tables["Bridge"] {
		for _, id := range elements(b["ports"]) {
			p := s.tables["Port"][id]
			line := fmt.Sprintf("%s %s", b["name"], p["name"])
			if tag, ok := p["tag"].(float64); ok {
				line += fmt.Sprintf(" tag=%v", tag)
			}
			for _, id := range elements(p["interfaces"]) {
				var ids []string
				for k, v := range pairs(s.tables["Interface"][id]["external_ids"]) {
					ids = append(ids, k+"="+v)
				}
				slices.Sort(ids)
				line += strings.Join(append([]string{""}, ids...), " ")
			}
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

// Do makes a transaction as somebody else would.
func (s *Server) Do(ops ...map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := json.Marshal(ops)
	if err != nil {
		panic(err)
	}
	var parsed []map[string]any
	if err := json.Unmarshal(text, &parsed); err != nil {
		panic(err)
	}
	s.transact(parsed)
}

func (s *Server) serve(c net.Conn) {
	defer c.Close()
	in, out := json.NewDecoder(bufio.NewReader(c)), json.NewEncoder(c)
	for {
		var m struct {
			ID     any    `json:"id"`
			Method string `json:"method"`
			Params []any  `json:"params"`
		}
		if in.Decode(&m) != nil {
			return
		}
		if m.Method != "transact" || s.Silent {
			continue
		}
		if s.Answer != "" {
			_, _ = c.Write([]byte(s.Answer))
			continue
		}
		// whether the client is alive; its answer has no method
		if out.Encode(map[string]any{"id": "echo", "method": "echo", "params": []any{}}) != nil {
			return
		}
		var ops []map[string]any
		for _, p := range m.Params[1:] {
			o, _ := p.(map[string]any)
			ops = append(ops, o)
		}
		s.mu.Lock()
		s.asked++
		if s.before != nil {
			now := s.before
			s.before = nil
			s.mu.Unlock()
			now()
			s.mu.Lock()
		}
		results := s.transact(ops)
		s.mu.Unlock()
		if out.Encode(map[string]any{"id": m.ID, "result": results, "error": nil}) != nil {
			return
		}
	}
}

// transact makes all or nothing; s.mu is held.
func (s *Server) transact(ops []map[string]any) []any {
	t := transaction{tables: tables{}, names: map[string]string{}}
	for name, rows := range s.tables {
		t.tables[name] = map[string]row{}
		for id, r := range rows {
			t.tables[name][id] = maps.Clone(r)
		}
	}
	results := make([]any, len(ops))
	for _, o := range ops {
		if name, ok := o["uuid-name"].(string); ok {
			t.names[name] = uuid.NewString()
		}
	}
	for n, o := range ops {
		r, failure := t.do(o)
		if failure != "" {
			results[n] = map[string]any{"error": failure, "details": fmt.Sprint(o)}
			return results
		}
		results[n] = r
	}
	if failure := t.commit(); failure != "" {
		return append(results, map[string]any{"error": failure, "details": ""})
	}
	s.tables = t.tables
	return results
}

type transaction struct {
	tables tables
	names  map[string]string
}

func (t *transaction) do(o map[string]any) (result map[string]any, failure string) {
	if o["op"] == "comment" {
		return map[string]any{}, ""
	}
	name, _ := o["table"].(string)
	table, ok := t.tables[name]
	if !ok {
		return nil, "unknown table"
	}
	ids := t.where(table, o["where"])
	switch o["op"] {
	case "select":
		rows := []any{}
		for _, id := range ids {
			r := maps.Clone(table[id])
			r["_uuid"] = []any{"uuid", id}
			rows = append(rows, r)
		}
		return map[string]any{"rows": rows}, ""
	case "wait":
		rows, _ := o["rows"].([]any)
		if len(rows) != len(ids) {
			return nil, "timed out"
		}
		return map[string]any{}, ""
	case "insert":
		given, _ := o["row"].(map[string]any)
		r := row{}
		for k, v := range given {
			r[k] = t.resolve(v)
		}
		id := uuid.NewString()
		if n, ok := o["uuid-name"].(string); ok {
			id = t.names[n]
		}
		table[id] = r
		return map[string]any{"uuid": []any{"uuid", id}}, ""
	case "mutate":
		all, _ := o["mutations"].([]any)
		for _, id := range ids {
			for _, m := range all {
				m, _ := m.([]any)
				column, _ := m[0].(string)
				table[id][column] = mutate(table[id][column], m[1], t.resolve(m[2]))
			}
		}
		return map[string]any{"count": len(ids)}, ""
	}
	return nil, "unknown operation"
}

// where knows only "==".
func (t *transaction) where(table map[string]row, w any) []string {
	var out []string
	conditions, _ := w.([]any)
	for id, r := range table {
		ok := true
		for _, c := range conditions {
			c, _ := c.([]any)
			column, _ := c[0].(string)
			v := r[column]
			if column == "_uuid" {
				v = []any{"uuid", id}
			}
			ok = ok && reflect.DeepEqual(v, c[2])
		}
		if ok {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// resolve puts rows in the place of their names.
func (t *transaction) resolve(v any) any {
	pair, ok := v.([]any)
	if !ok || len(pair) != 2 || pair[0] != "named-uuid" {
		return v
	}
	name, _ := pair[1].(string)
	return []any{"uuid", t.names[name]}
}

// commit removes what nothing refers to, and looks for names that are there
// twice.
func (t *transaction) commit() string {
	for _, up := range [][3]string{{"Open_vSwitch", "bridges", "Bridge"}, {"Bridge", "ports", "Port"}, {"Port", "interfaces", "Interface"}} {
		needed := map[string]bool{}
		for _, r := range t.tables[up[0]] {
			for _, id := range elements(r[up[1]]) {
				if t.tables[up[2]][id] == nil {
					return "referential integrity violation"
				}
				needed[id] = true
			}
		}
		names := map[any]bool{}
		for id, r := range t.tables[up[2]] {
			if !needed[id] {
				delete(t.tables[up[2]], id)
				continue
			}
			if names[r["name"]] {
				return "constraint violation"
			}
			names[r["name"]] = true
		}
	}
	return ""
}

func mutate(have, how, what any) any {
	if pair, ok := what.([]any); ok && len(pair) == 2 && pair[0] == "map" {
		all := pairs(have)
		for k, v := range pairs(what) {
			if _, there := all[k]; !there {
				all[k] = v
			}
		}
		return fromPairs(all)
	}
	if pair, ok := have.([]any); ok && len(pair) == 2 && pair[0] == "map" { // keys of a map to delete
		all := pairs(have)
		keys, _ := what.([]any)
		list, _ := keys[1].([]any)
		for _, k := range list {
			name, _ := k.(string)
			delete(all, name)
		}
		return fromPairs(all)
	}
	now := elements(have)
	for _, id := range elements(what) {
		now = slices.DeleteFunc(now, func(s string) bool { return s == id })
		if how == "insert" {
			now = append(now, id)
		}
	}
	return set(now...)
}

func set(ids ...string) any {
	all := []any{}
	for _, id := range ids {
		all = append(all, []any{"uuid", id})
	}
	if len(all) == 1 {
		return all[0]
	}
	return []any{"set", all}
}

// elements are the uuids of a value that is one or a set of them.
func elements(v any) []string {
	pair, _ := v.([]any)
	if len(pair) != 2 {
		return nil
	}
	if id, ok := pair[1].(string); ok {
		return []string{id}
	}
	var out []string
	all, _ := pair[1].([]any)
	for _, one := range all {
		out = append(out, elements(one)...)
	}
	return out
}

func pairs(v any) map[string]string {
	out := map[string]string{}
	pair, _ := v.([]any)
	if len(pair) != 2 || pair[0] != "map" {
		return out
	}
	all, _ := pair[1].([]any)
	for _, one := range all {
		kv, _ := one.([]any)
		k, _ := kv[0].(string)
		out[k], _ = kv[1].(string)
	}
	return out
}

func fromPairs(m map[string]string) any {
	all := []any{}
	for k, v := range m {
		all = append(all, []any{k, v})
	}
	return []any{"map", all}
}
