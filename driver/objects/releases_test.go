package objects

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// released is one line of testdata/releases.txt.
type released struct {
	name   string
	of     [3]string // version-fingerprint in Zed, 2026.1 and 2026.2; "-" where absent
	gained []Field
}

func releases(t *testing.T) []released {
	t.Helper()
	raw, err := os.ReadFile("testdata/releases.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []released
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		head, fields, _ := strings.Cut(strings.TrimSpace(line), ":")
		col := strings.Fields(head)
		if len(col) != 4 {
			t.Fatalf("%q: want a name and three versions", line)
		}
		schemas, err := parseSchemas(col[0] + " 1.0: " + fields)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, released{col[0], [3]string(col[1:]), schemas[col[0]].Fields})
	}
	return out
}

// TestZedIsTheFloor: what we ask for by the manifest of Zed every release up to
// the newest can answer, and what those send we can read.
func TestZedIsTheFloor(t *testing.T) {
	known := 0
	for _, r := range releases(t) {
		s, ours := Lookup(r.name)
		zed, _, _ := strings.Cut(r.of[0], "-")
		if ours != (zed != "") || ours && s.Version != zed {
			t.Errorf("%s: Zed has %q, we %q", r.name, zed, s.Version)
		}
		if !ours {
			continue
		}
		known++
		for _, of := range r.of[1:] {
			version, print, _ := strings.Cut(of, "-")
			if o := (&Object{Name: r.name, Version: version}); Check(o) != nil || !o.Since(s.Version) {
				t.Errorf("%s %s: not a later minor of %s", r.name, of, s.Version)
			}
			if _, before, _ := strings.Cut(r.of[0], "-"); version == zed && print != before {
				t.Errorf("%s: the same version with other fields", r.name)
			}
		}
		for _, f := range r.gained {
			if _, twice := s.Field(f.Name); twice {
				t.Errorf("%s: Zed has had %s", r.name, f.Name)
			}
		}
	}
	if known < 100 {
		t.Errorf("only %d objects", known)
	}
}

// TestGainedFieldsSurvive: a field that we do not know goes out as it came in.
func TestGainedFieldsSurvive(t *testing.T) {
	for _, r := range releases(t) {
		version, _, _ := strings.Cut(r.of[2], "-")
		if version == "" {
			continue
		}
		o := &Object{Name: r.name, Version: version}
		for _, f := range r.gained {
			o.Set(f.Name, map[bool]any{true: 7, false: "x"}[f.Type == "i"])
		}
		raw, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var back Object
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		if diff := cmp.Diff(o.Fields(), back.Fields()); diff != "" || back.Version != version {
			t.Errorf("%s %s: %s", r.name, back.Version, diff)
		}
	}
}
