package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// spareOf is the process that holds the spare, 0 without one.
func spareOf(n *Nursery) int {
	n.spare.mu.Lock()
	made := n.spare.made
	n.spare.mu.Unlock()
	if made == nil {
		return 0
	}
	<-made.made
	return made.held.child.pid
}

func gonePid(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

func idMap(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// A spare is nobody's: it has no ids until it is taken, then those of who has
// taken it, and it is taken once.
func TestSpare(t *testing.T) {
	n := NewNursery()
	defer n.Close()
	n.Spare()
	pid := spareOf(n)
	if pid == 0 {
		t.Fatal("there is none")
	}
	n.Spare()
	if spareOf(n) != pid {
		t.Error("another was made")
	}
	if have := idMap(t, pid); have != "" {
		t.Errorf("it has ids: %s", have)
	}
	seen := map[string]int{}
	for i, base := range []uint32{1000000, 2000000} {
		made := n.TakeNamespaces()
		defer made.Close()
		if spareOf(n) != 0 {
			t.Error("it was taken and is there")
		}
		ids := []IDMap{{0, base, 65536}}
		user, network, err := made.Open(ids, ids)
		if err != nil {
			t.Fatal(err)
		}
		defer linux.CloseAll([]*os.File{user, network})
		if (made.held.child.pid == pid) != (i == 0) {
			t.Errorf("take %d: process %d, the spare's is %d", i, made.held.child.pid, pid)
		}
		if have, want := idMap(t, made.held.child.pid), fmt.Sprintf("0 %d 65536", base); have != want {
			t.Errorf("ids %s, want %s", have, want)
		}
		for _, kind := range []string{userPin, netPin} {
			its, err := os.Readlink(filepath.Join(made.held.proc(), "ns", kind))
			if err != nil {
				t.Fatal(err)
			}
			seen[its]++
		}
	}
	if len(seen) != 4 {
		t.Errorf("namespaces %v, want two pairs", seen)
	}
}

// A spare that somebody has killed is not given away.
func TestSpareWasKilled(t *testing.T) {
	n := NewNursery()
	defer n.Close()
	n.Spare()
	pid := spareOf(n)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	made := n.TakeNamespaces()
	defer made.Close()
	ids := []IDMap{{0, 1000000, 65536}}
	user, network, err := made.Open(ids, ids)
	if err != nil {
		t.Fatal(err)
	}
	linux.CloseAll([]*os.File{user, network})
	if !gonePid(pid) {
		t.Error("it is left")
	}
}

// Nothing is left of a spare that nobody wants: after its time, and of a nursery
// that is closed.
func TestSpareEnds(t *testing.T) {
	n := NewNursery()
	n.Spare()
	pid, late := spareOf(n), n.spare.made
	n.spare.forgo(late)
	if spareOf(n) != 0 || !gonePid(pid) {
		t.Errorf("process %d is left after its time", pid)
	}
	n.Spare()
	pid = spareOf(n)
	n.spare.forgo(late) // is about another
	if pid == 0 || spareOf(n) != pid {
		t.Errorf("process %d, was %d", spareOf(n), pid)
	}
	n.Close()
	if !gonePid(pid) {
		t.Errorf("process %d is left of a closed nursery", pid)
	}
	n.Spare()
	if spareOf(n) != 0 {
		t.Error("a closed nursery has made one")
	}
}
