package objects

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const serviceText = `{"nova_object.name":"Service","nova_object.namespace":"nova","nova_object.version":"1.22",` +
	`"nova_object.data":{"host":"cmp1","disabled_reason":null,"report_count":12345678901,"new_in_1.23":{"a":[1]}},` +
	`"nova_object.changes":["report_count","not_there"]}`

func decodeService(t *testing.T) Service {
	t.Helper()
	var s Service
	if err := json.Unmarshal([]byte(serviceText), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSetAndNull(t *testing.T) {
	s := decodeService(t)
	if !s.Has("disabled_reason") || !s.IsNull("disabled_reason") {
		t.Error("null is set")
	}
	if s.Has("binary") || !s.IsNull("binary") || s.Binary() != "" {
		t.Error("absent is not set")
	}
	if s.ReportCount() != 12345678901 {
		t.Error(s.ReportCount())
	}
	if diff := cmp.Diff([]string{"report_count"}, s.Changes()); diff != "" {
		t.Error(diff)
	}
	s.Unset("report_count")
	if s.Has("report_count") || len(s.Changes()) != 0 {
		t.Error("unset leaves nothing")
	}
	raw, err := json.Marshal(s)
	if err != nil || !strings.Contains(string(raw), `"new_in_1.23":{"a":[1]}`) {
		t.Errorf("unknown field lost: %s %v", raw, err)
	}
}

func TestSetForms(t *testing.T) {
	o := New("Instance")
	flavor := New("Flavor")
	for name, c := range map[string]struct {
		in   any
		want string
	}{
		"int":     {7, `7`},
		"int64":   {int64(-7), `-7`},
		"float":   {1.5, `1.5`},
		"time":    {time.Date(2026, 11, 21, 7, 0, 0, 5, time.FixedZone("", 3600)), `"2026-11-21T06:00:00Z"`},
		"no time": {time.Time{}, `null`},
		"strings": {[]string{"a"}, `["a"]`},
		"map":     {map[string]string{"a": "b"}, `{"a":"b"}`},
		"deep":    {map[string]any{"a": []any{1, map[string]string{"b": "c"}}}, `{"a":[1,{"b":"c"}]}`},
		"nil obj": {(*Object)(nil), `null`},
		"no view": {Flavor{}, `null`},
		"view":    {Flavor{flavor}, `{"nova_object.data":{},"nova_object.name":"Flavor","nova_object.namespace":"nova","nova_object.version":"1.2"}`},
	} {
		o.Set("x", c.in)
		raw, err := json.Marshal(o.Get("x"))
		if err != nil || string(raw) != c.want {
			t.Errorf("%s: %s %v", name, raw, err)
		}
	}
	o.Set("x", map[string]any{"n": 5})
	if n, ok := o.Get("x").(map[string]any)["n"].(json.Number); !ok || n != "5" {
		t.Error("nested numbers keep their Go type")
	}
	defer func() {
		if recover() == nil {
			t.Error("a channel was taken")
		}
	}()
	o.Set("x", make(chan int))
}

func TestTimes(t *testing.T) {
	want := time.Date(2026, 11, 21, 6, 0, 54, 0, time.UTC)
	for _, text := range []string{
		"2026-11-21T06:00:54Z", "2026-11-21T07:00:54+01:00", "2026-11-21T06:00:54",
		"2026-11-21 06:00:54", "2026-11-21 06:00:54+00:00",
	} {
		if got := parseTime(text); !got.Equal(want) {
			t.Errorf("%s: %s", text, got)
		}
	}
	if got := parseTime("2026-11-21T06:00:54.806084"); got.Nanosecond() != 806084000 {
		t.Error(got)
	}
	if !parseTime("soon").IsZero() {
		t.Error("nonsense has a time")
	}
}

func TestSparseKeepsOnlyWhatIsAsked(t *testing.T) {
	i := NewInstance()
	i.SetClean("id", 5)
	i.SetClean("uuid", "u")
	i.SetClean("key_data", "secret")
	i.SetTaskState("")
	s := i.Sparse("id", "uuid", "absent")
	if diff := cmp.Diff([]string{"id", "task_state", "uuid"}, s.Fields()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"task_state"}, s.Changes()); diff != "" {
		t.Error(diff)
	}
}

func TestCloneAndReset(t *testing.T) {
	i := NewInstance()
	flavor := New("Flavor")
	flavor.Set("name", "small")
	i.Set("flavor", flavor)
	i.Set("metadata", map[string]string{"a": "b"})
	c := i.Clone()
	i.Flavor().Set("name", "large")
	i.Get("metadata").(map[string]any)["a"] = "c"
	i.ResetChanges()
	if len(i.Changes()) != 0 || len(i.Flavor().Changes()) != 0 {
		t.Error("marks are left")
	}
	copied := Instance{c}
	if copied.Flavor().FlavorName() != "small" || copied.Metadata()["a"] != "b" || len(c.Changes()) != 2 {
		t.Error("the copy shares with its origin")
	}
}

// TestTenantTextIsNoObject: metadata keys and values are a tenant's choice, and
// a host that cannot read its own instances cannot start.
func TestTenantTextIsNoObject(t *testing.T) {
	for _, metadata := range []string{
		`{"nova_object.name":"Service"}`,
		`{"nova_object.name":"Service","nova_object.namespace":"nova","nova_object.version":"9.9","nova_object.data":"{}"}`,
	} {
		raw := `{"nova_object.name":"Instance","nova_object.namespace":"nova","nova_object.version":"2.7",` +
			`"nova_object.data":{"uuid":"u","metadata":` + metadata + `}}`
		var i Instance
		if err := json.Unmarshal([]byte(raw), &i); err != nil {
			t.Fatal(err)
		}
		if i.Metadata()["nova_object.name"] != "Service" {
			t.Errorf("metadata became %v", i.Get("metadata"))
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	deep := strings.Repeat("[", maxDepth+2) + strings.Repeat("]", maxDepth+2)
	for name, text := range map[string]string{
		"empty":         ``,
		"garbage after": `{} {}`,
		"too deep":      deep,
		"no version":    `{"nova_object.name":"X","nova_object.namespace":"nova","nova_object.data":{}}`,
		"namespace":     `{"nova_object.name":"X","nova_object.namespace":"cinder","nova_object.version":"1.0","nova_object.data":{}}`,
		"name":          `{"nova_object.name":1,"nova_object.namespace":"nova","nova_object.version":"1.0","nova_object.data":{}}`,
		"changes":       `{"nova_object.name":"X","nova_object.namespace":"nova","nova_object.version":"1.0","nova_object.data":{},"nova_object.changes":[1]}`,
	} {
		if _, err := Decode([]byte(text)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(serviceText))
	f.Add([]byte(`[{"nova_object.name":"X"},1e400,"\ud800",{"nova_object.data":{}}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := Decode(raw)
		if err != nil {
			return
		}
		first, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("decoded and cannot be encoded: %v", err)
		}
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("encoded and cannot be decoded: %v\n%s", err, first)
		}
		second, err := json.Marshal(again)
		if err != nil || string(first) != string(second) {
			t.Fatalf("not stable: %v\n%s\n%s", err, first, second)
		}
	})
}
