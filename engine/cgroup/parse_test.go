package cgroup

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestParseIOStat(t *testing.T) {
	const text = "253:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:0 rbytes=1 wios=x\n8:16 \nnonsense\n"
	want := []DeviceIO{{8, 0, 1, 0, 0, 0}, {8, 16, 0, 0, 0, 0}, {253, 0, 4096, 8192, 1, 2}}
	if d := cmp.Diff(want, parseIOStat(text)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestParseThrottleIO(t *testing.T) {
	const text = "8:0 Read 4096\n8:0 Write 1\n8:0 Total 4097\nTotal 4097\n1:2 Read -3\n"
	got := parseThrottleIO(text, func(d *DeviceIO, op string, n int64) {
		if op == "Read" {
			d.ReadBytes = n
		}
	}, []DeviceIO{{Major: 9}})
	if d := cmp.Diff([]DeviceIO{{Major: 8, ReadBytes: 4096}, {Major: 9}}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestParsePressure(t *testing.T) {
	got := parsePressure("some avg10=0.12 avg60=1.00 avg300=NaN total=316801\nfull avg10=0.00 avg60=-1 avg300=0.00 total=2\n")
	want := PressureKind{
		Some: PressureTime{Avg10: 0.12, Avg60: 1, Total: 316801 * time.Microsecond},
		Full: PressureTime{Total: 2 * time.Microsecond},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestResolve(t *testing.T) {
	for name, want := range map[string]string{"a": "x/tree/a", "a/b": "x/tree/a/b", "/c/d": "c/d", "/x/tree/a": "x/tree/a", "/x/other": "x/other"} {
		if got, err := resolve("x/tree", name); got != want || err != nil {
			t.Errorf("%s = %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"/x", "/x/tree", "", "/", "../a", "/x/../y", strings.Repeat("a/", 20) + "a", strings.Repeat("a", 200), "a/cgroup.procs"} {
		if got, err := resolve("x/tree", name); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q = %q, %v", name, got, err)
		}
	}
}

// FuzzParse gives any text to every parser of a kernel file.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"8:0 rbytes=1 wbytes=2", "8:0 Read 1\nTotal 1", "some avg10=0.00 total=3", "1\n2\n0\n", "8:0 1048576\ndefault 100", "-1", "9223372036854771712",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list := parseIOStat(text)
		list = parseThrottleIO(text, func(*DeviceIO, string, int64) {}, list)
		if !slices.IsSortedFunc(list, compareDevice) {
			t.Fatalf("not sorted: %v", list)
		}
		for _, d := range list {
			if d.Major < 0 || d.Minor < 0 || d.ReadBytes < 0 || d.WriteBytes < 0 || d.ReadOps < 0 || d.WriteOps < 0 {
				t.Fatalf("negative: %+v", d)
			}
		}
		if p := parsePressure(text); p.Some.Total < 0 || p.Full.Avg10 < 0 {
			t.Fatalf("negative: %+v", p)
		}
		for _, key := range keys(text) {
			if strings.ContainsAny(key, " \n") {
				t.Fatalf("key %q", key)
			}
		}
		if n := number(text); n < -1 {
			t.Fatalf("number %d", n)
		}
	})
}

// FuzzResolve: no name leads out of the hierarchy, or to the tree.
func FuzzResolve(f *testing.F) {
	for _, name := range []string{"a", "/a/b", "../a", "/x/tree", "a//b", "/"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, err := resolve("x/tree", name)
		if err == nil && (path == "" || path[0] == '/' || strings.Contains(path, "..") && slices.Contains(strings.Split(path, "/"), "..") || path == "x" || path == "x/tree") {
			t.Fatalf("%q = %q", name, path)
		}
	})
}
