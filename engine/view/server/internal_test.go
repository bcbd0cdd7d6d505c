package server

import (
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/view"
)

func FuzzOffset(f *testing.F) {
	for _, text := range []string{"monotonic  -5 1\nboottime   -3601  250000000\n", "boottime x 1", "boottime 1 -1", "boottime 99999999999999 0", ""} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if by, err := parseOffset(text); err == nil && by.Abs() > 280*365*24*time.Hour {
			t.Errorf("%q is %s", text, by)
		}
	})
}

func TestOffset(t *testing.T) {
	got, err := parseOffset([]byte("monotonic         -5         1\nboottime       -3601 250000000\n"))
	if want := -3600*time.Second - 750*time.Millisecond; err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestTaskState(t *testing.T) {
	for text, want := range map[string]byte{"1 (a) R 0": 'R', "1 (a) b) D) S 0": 'S', "1 (a": 0, "1 (a)": 0, "": 0} {
		if got := taskState([]byte(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Averages rise with what runs, fall when nothing does, and begin anew with
// another boot.
func TestLoads(t *testing.T) {
	var l loads
	if got := l.next(time.Hour, 30*time.Minute); got.One < 0.49 || got.One > 0.51 || got.Fifteen < 0.48 || got.Fifteen > 0.51 {
		t.Errorf("half a processor for an hour: %+v", got)
	}
	l.count = view.Load{Running: 4, All: 9}
	used, up := 30*time.Minute, time.Hour
	for range 60 {
		up, used = up+10*time.Second, used+10*time.Second
		l.next(up, used)
	}
	got := l.next(up, used)
	if got.One < 3.9 || got.One > 4 || got.Five <= got.Fifteen || got.All != 9 {
		t.Errorf("four tasks of one processor: %+v", got)
	}
	l.count = view.Load{All: 9}
	if got := l.next(up+time.Hour, used); got.One > 0.01 || got.Fifteen > 0.1 {
		t.Errorf("nothing for an hour: %+v", got)
	}
	if got := l.next(time.Minute, 0); got.One != 0 || l.at != time.Minute {
		t.Errorf("another boot: %+v", got)
	}
}

// Numbers are those of files in the kernel's memory: they must not change.
func TestNumbers(t *testing.T) {
	if got := numberOf("6f8a3f5e-4d3c-4a5e-9b1a-0123456789ab"); got != 0xc81e5cb98c0 {
		t.Errorf("%#x", got)
	}
	if got := numberOf("a"); got>>(64-view.NodeBits) != 0 || got == 0 {
		t.Errorf("%#x", got)
	}
	for id, want := range map[string]bool{"a-B_9": true, "": false, "status": false, "a/b": false, "..": false, ".": false, "a b": false, strings.Repeat("a", 129): false} {
		if isID(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}
