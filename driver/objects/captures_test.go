package objects

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testdata/captures is what a stock nova-compute (Zed, fake driver) and its
// control plane said to one another, one message a line, tokens scrubbed.

type captured struct {
	where string
	body  json.RawMessage // the inner message, parsed out of oslo.message
}

func captures(t *testing.T) []captured {
	t.Helper()
	files, err := filepath.Glob("testdata/captures/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	var out []captured
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(raw))
		lines.Buffer(nil, 1<<20)
		for n := 1; lines.Scan(); n++ {
			var m struct {
				Body struct {
					Message json.RawMessage `json:"oslo.message"`
				} `json:"body"`
			}
			if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
				t.Fatalf("%s:%d: %v", name, n, err)
			}
			out = append(out, captured{filepath.Base(name) + ":" + strconv.Itoa(n), slices.Clone(m.Body.Message)})
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// canonical is a JSON value in a form that compares: numbers as text, and the
// changes of an object, whose order means nothing, sorted.
func canonical(t *testing.T, raw []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return sortChanges(v)
}

func sortChanges(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = sortChanges(x[k])
		}
		if c, ok := x[keyChanges].([]any); ok {
			slices.SortFunc(c, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		}
	case []any:
		for i := range x {
			x[i] = sortChanges(x[i])
		}
	}
	return v
}

// eachObject visits every object in a decoded value, parents first.
func eachObject(v any, visit func(*Object)) {
	switch x := v.(type) {
	case *Object:
		visit(x)
		for _, f := range x.Fields() {
			eachObject(x.Get(f), visit)
		}
	case []any:
		for _, e := range x {
			eachObject(e, visit)
		}
	case map[string]any:
		for _, e := range x {
			eachObject(e, visit)
		}
	}
}

func TestCapturesRoundTrip(t *testing.T) {
	objects := 0
	for _, c := range captures(t) {
		v, err := Decode(c.body)
		if err != nil {
			t.Fatalf("%s: %v", c.where, err)
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s: %v", c.where, err)
		}
		if diff := cmp.Diff(canonical(t, c.body), canonical(t, again)); diff != "" {
			t.Fatalf("%s: lost in a round trip (-captured +ours):\n%s", c.where, diff)
		}
		eachObject(v, func(*Object) { objects++ })
	}
	if objects < 500 {
		t.Fatalf("only %d objects seen: the captures are not what they were", objects)
	}
}

func TestCapturesFollowSchema(t *testing.T) {
	for _, c := range captures(t) {
		v, err := Decode(c.body)
		if err != nil {
			t.Fatal(err)
		}
		eachObject(v, func(o *Object) {
			s, ok := Lookup(o.Name)
			if !ok || s.Version != o.Version {
				t.Fatalf("%s: %s %s is not in the table (it has %q)", c.where, o.Name, o.Version, s.Version)
			}
			if err := Check(o); err != nil {
				t.Fatalf("%s: %v", c.where, err)
			}
			for _, name := range o.Fields() {
				f, ok := s.Field(name)
				if !ok {
					t.Fatalf("%s: %s has no field %s in the table", c.where, o.Name, name)
				}
				if !fits(f, o.Get(name)) {
					t.Fatalf("%s: %s.%s is %T, the table says %s", c.where, o.Name, name, o.Get(name), f.Type)
				}
			}
		})
	}
}

// fits compares a value with the kind that the table declares.
func fits(f Field, v any) bool {
	if v == nil {
		return f.Nullable
	}
	ok := true
	switch {
	case f.Type == "i" || f.Type == "f":
		_, ok = v.(json.Number)
	case f.Type == "b":
		_, ok = v.(bool)
	case strings.HasPrefix(f.Type, "O:"):
		var o *Object
		o, ok = v.(*Object)
		ok = ok && o.Name == f.Object()
	case strings.HasPrefix(f.Type, "L["), strings.HasPrefix(f.Type, "set["):
		_, ok = v.([]any)
	case strings.HasPrefix(f.Type, "M["):
		_, ok = v.(map[string]any)
	case f.Type == "s", f.Type == "uuid", f.Type == "dt", f.Type == "nwjson", strings.HasPrefix(f.Type, "e"):
		_, ok = v.(string)
	}
	return ok
}

func TestCapturedManifests(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range captures(t) {
		var m struct {
			Args struct {
				Name     string            `json:"objname"`
				Versions map[string]string `json:"object_versions"`
			} `json:"args"`
		}
		_ = json.Unmarshal(c.body, &m) // replies have no args
		if m.Args.Name == "" {
			continue
		}
		seen[m.Args.Name] = true
		if diff := cmp.Diff(m.Args.Versions, Manifest(m.Args.Name)); diff != "" {
			t.Fatalf("%s: manifest of %s (-captured +ours):\n%s", c.where, m.Args.Name, diff)
		}
	}
	if len(seen) < 10 {
		t.Fatalf("only %d manifests seen", len(seen))
	}
}

func TestCapturedNetworkInfo(t *testing.T) {
	seen := 0
	check := func(where, text string) {
		info, err := ParseNetworkInfo(text)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if diff := cmp.Diff(canonical(t, []byte(text)), canonical(t, []byte(info.Text()))); diff != "" {
			t.Fatalf("%s: lost in a round trip (-captured +ours):\n%s", where, diff)
		}
		seen += len(info)
	}
	for _, c := range captures(t) {
		v, err := Decode(c.body)
		if err != nil {
			t.Fatal(err)
		}
		eachObject(v, func(o *Object) {
			if text, ok := o.Get("network_info").(string); ok {
				check(c.where, text)
			}
		})
	}
	if seen == 0 {
		t.Fatal("no network info seen")
	}
}

func TestDirtyFieldsOfCapturedBuild(t *testing.T) {
	for _, c := range captures(t) {
		if !strings.HasPrefix(c.where, "10-create") {
			continue
		}
		var m struct {
			Method string
			Args   struct{ Instance Instance }
		}
		_ = json.Unmarshal(c.body, &m)
		if m.Method != "build_and_run_instance" {
			continue
		}
		i := m.Args.Instance
		if diff := cmp.Diff([]string{"ec2_ids", "tags"}, i.Changes()); diff != "" {
			t.Fatal(diff)
		}
		if i.VMState() != "building" || i.TaskState() != "scheduling" || i.Host() != "" || !i.Has("host") {
			t.Fatalf("states %q %q host %q", i.VMState(), i.TaskState(), i.Host())
		}
		f := i.Flavor()
		if f.FlavorName() != "c1.tiny" || f.MemoryMB() != i.MemoryMB() || f.VCPUs() != 1 || i.Has("fault") {
			t.Fatalf("flavor %s", f.FlavorName())
		}
		if len(i.KeyPairs()) != 1 || i.KeyPairs()[0].PublicKey() != i.KeyData() {
			t.Fatal("key pairs differ from key_data")
		}
		return
	}
	t.Fatal("no build seen")
}
