package local

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestParseProcessors(t *testing.T) {
	for text, want := range map[string][]int{
		"0": {0}, "0-2,5": {0, 1, 2, 5}, " 4 - 7 , ^5 ,9": {4, 6, 7, 9}, "^1,0-2": {0, 2}, "1,1,1-1": {1}, "3,": {3},
		"": nil, ",": nil, "^1": nil, "1,^1": nil, "2-1": nil, "-1": nil, "a": nil, "1-": nil, "^1-2,1-4": nil, "8192": nil, "0-99999999999": nil,
	} {
		got, err := parseProcessors(text)
		if !slices.Equal(got, want) || (want == nil) != errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v %v, want %v", text, got, err, want)
		}
	}
	for _, sets := range [][2]string{{"0", "0"}, {"8191", ""}, {"", "8191"}, {"x", ""}, {"", ","}} {
		if own, shared, err := ParseProcessors(sets[0], sets[1]); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v %v %v", sets, own, shared, err)
		}
	}
	if own, shared, err := ParseProcessors("", ""); own != nil || shared != nil || err != nil {
		t.Errorf("unset: %v %v %v", own, shared, err)
	}
}

func FuzzParseProcessors(f *testing.F) {
	for _, text := range []string{"0-3,^2,5", "^1", "1--2", "0-8191"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseProcessors(text)
		if (err == nil) != (len(got) > 0) || len(got) > mostProcessors || !slices.IsSorted(got) {
			t.Fatalf("%q: %v %v", text, got, err)
		}
		if err != nil {
			return
		}
		if again, err := parseProcessors(textOf(got)); err != nil || !slices.Equal(again, got) {
			t.Fatalf("%q: %v, read again %v %v", text, got, again, err)
		}
	})
}

func TestProcessorsFor(t *testing.T) {
	sets := func(dedicated, shared []int) *Driver {
		d := onDisk(t, 1)
		d.opts.Dedicated, d.opts.Shared = dedicated, shared
		return d
	}
	own := func(vcpus int64, cpus ...int) driver.Flavor { return driver.Flavor{VCPUs: vcpus, Processors: cpus} }
	for _, tt := range []struct {
		name string
		d    *Driver
		f    driver.Flavor
		want string
		err  error
	}{
		{"all float", sets(nil, nil), own(2), "", nil},
		{"over the shared", sets([]int{2, 3}, []int{0, 1}), own(4), "0,1", nil},
		{"its own", sets([]int{2, 3}, nil), own(2, 2, 3), "2,3", nil},
		{"too few", sets([]int{2, 3}, nil), own(2, 2), "", errdefs.ErrInvalid},
		{"not given away", sets([]int{2, 3}, []int{0}), own(1, 0), "", errdefs.ErrInvalid},
		{"none to give", sets(nil, nil), own(1, 0), "", errdefs.ErrInvalid},
		{"none to share", sets([]int{0}, nil), own(1), "", errdefs.ErrInvalid},
	} {
		l, err := tt.d.limitsFor(tt.f)
		if l.CPUSet != tt.want || !errors.Is(err, tt.err) || (err != nil) != (errdefs.PublicText(err, "") != "") {
			t.Errorf("%s: %q %v", tt.name, l.CPUSet, err)
		}
	}
}

func TestCells(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		name = filepath.Join(root, "sys/devices/system", name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if cells, err := cellsOf(root, nil, nil); cells != nil || err != nil {
		t.Errorf("nothing is set aside: %v %v", cells, err)
	}
	one, err := cellsOf(root, []int{1}, []int{0}) // a kernel that knows of no nodes
	if err != nil || len(one) != 1 || one[0].MemoryMB < 1 {
		t.Fatalf("%+v, %v", one, err)
	}
	if diff := cmp.Diff([][]int{{0}, {1}}, one[0].Siblings); diff != "" {
		t.Error(diff)
	}
	put("node/online", "0-2\n")
	for node, cpus := range []string{"0-3\n", "4-7\n", "\n"} {
		dir := "node/node" + string(rune('0'+node))
		put(dir+"/cpulist", cpus)
		put(dir+"/meminfo", "Node 0 MemTotal:        2097152 kB\nNode 0 MemFree: 1 kB\n")
	}
	for cpu := range 8 {
		dir := "cpu/cpu" + string(rune('0'+cpu)) + "/topology/"
		put(dir+"physical_package_id", string(rune('0'+cpu/4)))
		put(dir+"thread_siblings_list", string(rune('0'+cpu/2*2))+"-"+string(rune('0'+cpu/2*2+1))+"\n")
	}
	page := int64(os.Getpagesize()) / 1024
	want := []driver.Cell{
		{ID: 0, Socket: 0, MemoryMB: 2048, PageKB: page, Shared: []int{0, 1}, Dedicated: []int{3}, Siblings: [][]int{{0, 1}, {3}}},
		{ID: 1, Socket: 1, MemoryMB: 2048, PageKB: page, Shared: []int{}, Dedicated: []int{4, 5, 6}, Siblings: [][]int{{4, 5}, {6}}},
	}
	got, err := cellsOf(root, []int{3, 4, 5, 6}, []int{0, 1})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	put("node/node1/meminfo", "nothing\n")
	if _, err := cellsOf(root, []int{4}, nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("without the memory: %v", err)
	}
}
