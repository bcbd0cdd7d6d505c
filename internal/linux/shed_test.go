package linux

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
)

// table is in the part of the program that nobody writes to.
const table = "a text that is long enough to lie in the program's file"

func TestShed(t *testing.T) {
	before := programPages(t)
	if err := Shed(); err != nil {
		t.Fatal(err)
	}
	// what the test has touched since is little of it
	if after := programPages(t); after >= before {
		t.Errorf("%d KiB of the program before, %d after", before, after)
	}
	if !bytes.HasPrefix([]byte(table), []byte("a text")) {
		t.Error("a constant is lost")
	}
}

// programPages is how many KiB of unwritten files this process has mapped.
func programPages(t *testing.T) (kib int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	counts := false
	for line := range strings.Lines(string(text)) {
		if first, _, _ := strings.Cut(line, " "); strings.Contains(first, "-") {
			_, _, counts = unwritten(line)
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
		line     string
		from, to uintptr
		ok       bool
	}{
		{"00400000-0150f000 r-xp 00000000 fe:00 1234                       /usr/bin/gantry", 0x400000, 0x150f000, true},
		{"0150f000-025bc000 r--p 0110f000 fe:00 1234                       /usr/bin/gantry", 0x150f000, 0x25bc000, true},
		{"025bc000-026b4000 rw-p 021bc000 fe:00 1234                       /usr/bin/gantry", 0, 0, false},
		{"7fff0000-7fff2000 r-xp 00000000 00:00 0                          [vdso]", 0, 0, false},
		{"7f000000-7f001000 r--s 00000000 00:05 77                         /dev/shm/x", 0, 0, false},
		{"c000000000-c000400000 rw-p 00000000 00:00 0 ", 0, 0, false},
		{"Rss:                   4 kB", 0, 0, false},
		{"", 0, 0, false},
	} {
		from, to, ok := unwritten(tt.line)
		if ok != tt.ok || ok && (from != tt.from || to != tt.to) {
			t.Errorf("%q: %x %x %v", tt.line, from, to, ok)
		}
	}
}
