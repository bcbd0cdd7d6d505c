package conductor_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

// The files in testdata are what a stock nova-compute of Zed and its conductor
// said to one another, one message a line with its reply. Each request is
// asked of our conductor, and the answer must have the shape of the recorded
// one: the same exception, or the same objects with the same fields.

type message struct {
	Topic, Method, Namespace, Version string
	Args                              map[string]json.RawMessage
	Context                           map[string]json.RawMessage
	Result                            json.RawMessage
	Failure                           *struct{ Class, Module, Message string }
}

func recorded(t *testing.T, name string) (out []message) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func TestRecordedMessages(t *testing.T) {
	for _, name := range []string{"startup_first", "create", "serial_console", "stop", "delete", "create_fails"} {
		t.Run(name, func(t *testing.T) {
			r := newServed(t)
			p := &player{t: t, r: r, ids: map[string]int64{}}
			all := recorded(t, name)
			p.prepare(all)
			for n, m := range all {
				if m.Topic == "conductor" && m.Method != "build_instances" {
					p.play(fmt.Sprintf("%s %d", name, n+1), m)
				}
			}
		})
	}
}

// player asks recorded requests of our conductor.
type player struct {
	t *testing.T
	r *rig
	// ids are our row ids by kind of object: recorded ones are replaced.
	ids map[string]int64
}

// prepare makes the rows that the recorded control plane had when the
// recording began.
func (p *player) prepare(all []message) {
	ctx, born := p.t.Context(), map[string]bool{}
	for _, m := range all {
		var o objects.Object
		if string(m.Args["objmethod"]) == `"create"` && json.Unmarshal(m.Args["objinst"], &o) == nil {
			born[o.Name] = true // while it was recorded
		}
	}
	for _, m := range all {
		for _, raw := range m.Args {
			v, err := objects.Decode(raw)
			if err != nil {
				p.t.Fatal(err)
			}
			o, _ := v.(*objects.Object)
			switch {
			case o == nil || born[o.Name] || p.ids[o.Name] != 0 || !o.Has("id"):
			case o.Name == "Instance":
				p.instance(o, m)
			case o.Name == "Service":
				s, err := p.r.store.CreateService(ctx, objects.Service{Object: like(o)})
				p.made("Service", s.ID(), err)
			case o.Name == "ComputeNode":
				n, err := p.r.store.CreateComputeNode(ctx, objects.ComputeNode{Object: like(o)})
				p.made("ComputeNode", n.ID(), err)
			}
		}
	}
	if p.ids["Instance"] != 0 && p.ids["Service"] == 0 {
		s, err := p.r.store.CreateService(ctx, objects.NewService("fake-1", "nova-compute", "compute", 64))
		p.made("Service", s.ID(), err)
	}
}

// like is the row that an object in a message is of.
func like(o *objects.Object) *objects.Object {
	o = o.Clone()
	o.Unset("report_count")
	return o
}

func (p *player) made(kind string, id int64, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	p.ids[kind] = id
}

func (p *player) instance(o *objects.Object, m message) {
	p.t.Helper()
	i := objects.Instance{Object: o.Clone()}
	if m.Topic == "compute" && m.Method == "build_and_run_instance" {
		i.SetTaskState("scheduling")
	}
	action, request := "action", ""
	if err := json.Unmarshal(m.Context["request_id"], &request); err != nil {
		p.t.Fatal(err)
	}
	bdm := objects.New("BlockDeviceMapping")
	for f, v := range map[string]any{
		"source_type": "image", "destination_type": "local", "device_type": "disk", "boot_index": 0,
		"delete_on_termination": true, "image_id": i.ImageRef(),
	} {
		bdm.Set(f, v)
	}
	out, err := p.r.store.CreateInstances(p.t.Context(), cell.Create{
		Instances: []cell.NewInstance{{Instance: i, BlockDevices: []*objects.Object{bdm}}},
		Action:    cell.Actor{Action: action, RequestID: request, UserID: i.UserID(), ProjectID: i.ProjectID()},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	devices, err := p.r.store.BlockDevices(p.t.Context(), i.UUID())
	p.made("BlockDeviceMapping", devices[i.UUID()][0].Int("id"), err)
	p.made("Instance", out[0].ID(), nil)
}

// play asks one request.
func (p *player) play(name string, m message) {
	p.t.Helper()
	args := map[string]any{}
	for k, raw := range m.Args {
		v, err := objects.Decode(raw)
		if err != nil {
			p.t.Fatal(err)
		}
		if o, ok := v.(*objects.Object); ok && p.ids[o.Name] != 0 && o.Has("id") {
			o.SetClean("id", p.ids[o.Name])
		}
		args[k] = v
	}
	target := messaging.Target{Topic: m.Topic, Namespace: m.Namespace, Version: m.Version}
	var raw json.RawMessage
	err := p.r.caller.Call(p.t.Context(), messaging.NewRequestContext(m.Context), target, m.Method, args, &raw)
	if sent, ok := args["objinst"].(*objects.Object); ok {
		name += " " + sent.Name + "." + fmt.Sprint(args["objmethod"])
	} else {
		name += fmt.Sprintf(" %v.%v", args["objname"], args["objmethod"])
	}
	if m.Failure != nil {
		if !messaging.IsRemote(err, m.Failure.Class) || !strings.Contains(err.Error(), m.Failure.Message) {
			p.t.Errorf("%s: %v; recorded %+v", name, err, *m.Failure)
		}
		return
	}
	if err != nil {
		p.t.Errorf("%s: %v", name, err)
		return
	}
	got, err := objects.Decode(raw)
	if err != nil {
		p.t.Fatal(err)
	}
	want, err := objects.Decode(m.Result)
	if err != nil {
		p.t.Fatal(err)
	}
	if m.Method == "object_action" {
		sent := args["objinst"].(*objects.Object)
		gotUpdates, wantUpdates := got.([]any)[0].(map[string]any), want.([]any)[0].(map[string]any)
		p.learn(sent.Name, gotUpdates)
		compareUpdates(p.t, name, sent, gotUpdates, wantUpdates)
		got, want = got.([]any)[1], want.([]any)[1]
	}
	for _, d := range differences("", got, want) {
		p.t.Errorf("%s: %s", name, d)
	}
}

func (p *player) learn(kind string, updates map[string]any) {
	if n, ok := updates["id"].(json.Number); ok {
		p.ids[kind], _ = n.Int64()
	}
}

// compareUpdates compares the answer of an object_action. Nova repeats nested
// objects and lists even when they are as they were sent; that is no update.
func compareUpdates(t *testing.T, name string, sent *objects.Object, got, want map[string]any) {
	t.Helper()
	for field, w := range want {
		if _, has := got[field]; has || field == "obj_what_changed" {
			continue
		}
		a, errA := json.Marshal(w)
		b, errB := json.Marshal(sent.Get(field))
		_, nested := w.(*objects.Object)
		if errA != nil || errB != nil || !nested && sent.Has(field) && bytes.Equal(a, b) || nested && sent.Has(field) {
			continue
		}
		// what the recorded rows had, and the prepared ones have not, is not sent
		if sent.Has(field) && scalar(w) {
			continue
		}
		t.Errorf("%s: field %s is not answered (recorded %s)", name, field, a)
	}
	for field, g := range got {
		w, has := want[field]
		if !has {
			if !sent.Has(field) {
				t.Errorf("%s: field %s is answered, not in the recording", name, field)
			}
			continue
		}
		for _, d := range differences(field, g, w) {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func scalar(v any) bool {
	switch v.(type) {
	case nil, string, bool, json.Number:
		return true
	}
	return false
}

// differences are those between two values in kind, not in value: null is any
// kind, a list is its first element.
func differences(path string, got, want any) (out []string) {
	if got == nil || want == nil {
		if (got == nil) != (want == nil) && path == "" {
			return []string{fmt.Sprintf("%v, recorded %v", got, want)}
		}
		return nil
	}
	switch w := want.(type) {
	case *objects.Object:
		g, ok := got.(*objects.Object)
		if !ok || g.Name != w.Name || g.Version != w.Version {
			return []string{fmt.Sprintf("%s is a %T, recorded %s %s", path, got, w.Name, w.Version)}
		}
		if a, b := g.Fields(), w.Fields(); !slices.Equal(a, b) {
			out = append(out, fmt.Sprintf("%s (%s) has fields %v, recorded %v", path, w.Name, a, b))
		}
		for _, f := range w.Fields() {
			out = append(out, differences(path+"."+f, g.Get(f), w.Get(f))...)
		}
	case []any:
		g, ok := got.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s is a %T, recorded a list", path, got)}
		}
		if len(g) > 0 && len(w) > 0 {
			out = differences(path+"[0]", g[0], w[0])
		}
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s is a %T, recorded a map", path, got)}
		}
		for _, k := range slices.Sorted(maps.Keys(w)) {
			out = append(out, differences(path+"["+k+"]", g[k], w[k])...)
		}
	default:
		if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) {
			return []string{fmt.Sprintf("%s is a %T, recorded %T", path, got, want)}
		}
	}
	return out
}
