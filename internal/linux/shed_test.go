package linux

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const shedChild = "GANTRY_TEST_SHED"

// TestShedChild sheds and works on, many times. It does nothing of its own
// accord.
func TestShedChild(t *testing.T) {
	if os.Getenv(shedChild) == "" {
		return
	}
	before := programPages(t)
	if err := Shed(); err != nil {
		t.Fatal(err)
	}
	// what was touched since is little of it
	if after := programPages(t); after >= before {
		t.Errorf("%d KiB of the program before, %d after", before, after)
	}
	for range 20 {
		if err := Shed(); err != nil {
			t.Fatal(err)
		}
		done := make(chan string)
		go func() { done <- fmt.Sprint(os.Getpid(), t.Name()) }()
		if got := <-done; !strings.HasSuffix(got, "TestShedChild") {
			t.Errorf("got %q", got)
		}
	}
}

// TestShed: a program goes on without what it has given back, which other
// libraries have mapped too where it is linked with some.
func TestShed(t *testing.T) {
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestShedChild$")
	child.Env = append(os.Environ(), shedChild+"=1")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// programPages is how many KiB of unwritten files this process has mapped.
func programPages(t *testing.T) (kib int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	list := unwritten(string(text))
	counts := false
	for line := range strings.Lines(string(text)) {
		if at, _, _ := strings.Cut(line, " "); strings.Contains(at, "-") {
			from, _, _ := strings.Cut(at, "-")
			n, err := strconv.ParseUint(from, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			counts = slices.ContainsFunc(list, func(m addresses) bool { return m.from == uintptr(n) })
		}
		if rest, ok := strings.CutPrefix(line, "Rss:"); ok && counts {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			kib += n
		}
	}
	return kib
}

func TestUnwritten(t *testing.T) {
	for _, tt := range []struct {
		header, anonymous string
		want              bool
	}{
		{"00400000-0150f000 r-xp 00000000 fe:00 1234                       /usr/bin/gantry", "0", true},
		{"0150f000-025bc000 r--p 0110f000 fe:00 1234                       /usr/bin/gantry", "0", true},
		{"0150f000-025bc000 r--p 0110f000 fe:00 1234                       /usr/lib/relocated.so", "12", false},
		{"025bc000-026b4000 rw-p 021bc000 fe:00 1234                       /usr/bin/gantry", "0", false},
		{"7fff0000-7fff2000 r-xp 00000000 00:00 0                          [vdso]", "0", false},
		{"7f000000-7f001000 r--s 00000000 00:05 77                         /dev/shm/x", "0", false},
		{"c000000000-c000400000 rw-p 00000000 00:00 0 ", "0", false},
		{"", "0", false},
	} {
		got := unwritten(tt.header + "\nRss:                   4 kB\nAnonymous:             " + tt.anonymous + " kB\n")
		if (len(got) == 1) != tt.want || tt.want && fmt.Sprintf("%08x-%08x", got[0].from, got[0].to) != tt.header[:17] {
			t.Errorf("%q: %x", tt.header, got)
		}
	}
}
