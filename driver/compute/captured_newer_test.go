package compute

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// newerMessages are the requests that control planes newer than Zed sent to this
// host, one of each method: testdata/messages/SERIES.jsonl, tokens scrubbed.
func newerMessages(t *testing.T, visit func(t *testing.T, topic string, o *op)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "messages", "20*.jsonl"))
	if err != nil || len(files) < 2 {
		t.Fatalf("captures of two releases: %v %v", files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(raw))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var msg struct {
				Topic, Method, Version string
				Args                   map[string]json.RawMessage
			}
			if err := json.Unmarshal(lines.Bytes(), &msg); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			t.Run(filepath.Base(file)+"/"+msg.Method, func(t *testing.T) {
				visit(t, msg.Topic, &op{name: msg.Method, req: &messaging.Request{Method: msg.Method, Version: msg.Version, Args: msg.Args}})
			})
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNewerMessagesAreServed: every method is in the table, its instance is
// taken in the version it came in, and no object in it loses anything.
func TestNewerMessagesAreServed(t *testing.T) {
	table := methods()
	m := New(Deps{}, DefaultOptions("gantry-1"), (&op{}).log)
	builds := 0
	newerMessages(t, func(t *testing.T, topic string, o *op) {
		if topic != "compute" && topic != "compute-alt" {
			t.Errorf("came by %q", topic)
		}
		i := slices.IndexFunc(table, func(x method) bool { return x.name == o.name })
		if i < 0 {
			t.Fatal("not in the table")
		}
		for name, raw := range o.req.Args {
			v, err := objects.Decode(raw)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			again, err := json.Marshal(v)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(plain(t, raw), plain(t, again)); diff != "" {
				t.Errorf("%s (-captured +ours):\n%s", name, diff)
			}
		}
		if table[i].wrap&wrapHost != 0 {
			return
		}
		if err := m.admit(table[i], o); err != nil {
			t.Fatal(err)
		}
		if !o.inst.Since("2.8") {
			t.Errorf("the instance is of version %s", o.inst.Version)
		}
		if o.name != "build_and_run_instance" {
			return
		}
		builds++
		b := &build{op: o, m: m}
		if err := b.args.decode(o); err != nil {
			t.Fatal(err)
		}
		if err := b.args.refuse(o.inst); err != nil {
			t.Errorf("refused: %v", err)
		}
	})
	if builds < 2 {
		t.Errorf("%d builds", builds)
	}
}

// plain is a JSON value that compares; the order of an object's changes means
// nothing.
func plain(t *testing.T, raw []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return unordered(v)
}

func unordered(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			x[k] = unordered(e)
			if list, ok := x[k].([]any); ok && k == "nova_object.changes" {
				set := map[any]bool{}
				for _, name := range list {
					set[name] = true
				}
				x[k] = set
			}
		}
	case []any:
		for i := range x {
			x[i] = unordered(x[i])
		}
	}
	return v
}
