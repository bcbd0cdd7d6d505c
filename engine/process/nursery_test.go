package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// countProgram reports how many of the first 64 descriptors it has: launch's
// two and n files.
func countProgram(n int, file *os.File) *Program {
	c := &compiler{Program: newProgram(), spec: &Spec{}}
	for range n {
		c.placeFile("file", file)
	}
	for fd := range 64 {
		c.call("look", unix.SYS_FCNTL, num(fd), num(unix.F_GETFD)).ignore(unix.EBADF)
		absent := c.jumpIgnored()
		msg, _ := c.record(uint32(100+fd), "found")
		c.call("tell", unix.SYS_WRITE, num(statusFD), msg, num(recordSize))
		c.land(absent)
	}
	c.call("end", unix.SYS_EXIT_GROUP, num(7))
	return c.Program
}

// born launches p and returns the descriptors that it has.
func born(t *testing.T, n *Nursery, p *Program) (fds []int) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	child, status, err := launch(p, null, n)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = status.Close() }()
	b := &birth{prog: p, child: child, status: status}
	buf := make([]byte, recordSize)
	for {
		got, err := status.Read(buf)
		if got == 0 || err != nil {
			break
		}
		fds = append(fds, int(buf[0])-100)
	}
	if ws := b.child.wait(); ws.ExitStatus() != 7 {
		t.Errorf("exit status %d", ws.ExitStatus())
	}
	return fds
}

// A child has the files that it is given and no other, whatever the one before
// it had. More than a nursery can pass on are the caller's own fork's.
func TestNurseryFiles(t *testing.T) {
	n := NewNursery()
	defer n.Close()
	for _, count := range []int{30, 0, maxBorn - 3, 5} {
		if fds := born(t, n, countProgram(count, os.Stdin)); len(fds) != firstFD+count || fds[len(fds)-1] != firstFD+count-1 {
			t.Errorf("%d files: %v", count, fds)
		}
	}
	if fds := born(t, n, countProgram(maxBorn, os.Stdin)); len(fds) != 64 {
		t.Errorf("%d files: %v", maxBorn, fds)
	}
}

// A nursery that was killed is replaced, one that is closed bears nothing; no
// child is left.
func TestNurseryEnds(t *testing.T) {
	n := NewNursery()
	first := born(t, n, countProgram(1, os.Stdin))
	pid := n.self.pid
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || strings.TrimSpace(string(name)) != "gantry-nursery" {
		t.Errorf("name %s, %v", name, err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if again := born(t, n, countProgram(1, os.Stdin)); len(again) != len(first) || n.self.pid == pid {
		t.Errorf("%v, before %v", again, first)
	}
	pid = n.self.pid
	n.Close()
	n.Close()
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("nursery is left: %v", err)
	}
	born(t, n, countProgram(1, os.Stdin))
	if n.self != nil {
		t.Error("a closed nursery has begun")
	}
}

// What cannot be born is an error, and the next child is.
func TestNurseryFails(t *testing.T) {
	n := NewNursery()
	defer n.Close()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	if _, ok, err := n.bear([]*os.File{dir, dir}, dir); !ok || !errors.Is(err, unix.EBADF) {
		t.Errorf("birth in a directory: %v, %v", ok, err)
	}
	born(t, n, countProgram(0, nil))
	// the second is no program
	if _, ok, err := n.bear([]*os.File{dir, dir}, nil); !ok || !errors.Is(err, unix.EACCES) {
		t.Errorf("execution of a directory: %v, %v", ok, err)
	}
	born(t, n, countProgram(0, nil))
	text, err := os.ReadFile(filepath.Join("/proc/self/task", fmt.Sprint(os.Getpid()), "children"))
	if err != nil || len(strings.Fields(string(text))) > 1 {
		t.Errorf("children %s, %v", text, err)
	}
}

// What holds namespaces is in new ones, has nothing of the nursery, and ends when
// nobody needs it.
func TestNurseryHolds(t *testing.T) {
	n := NewNursery()
	defer n.Close()
	h, held, err := n.holdNamespaces(unix.CLONE_NEWUSER | unix.CLONE_NEWNET)
	if !held || err != nil {
		t.Fatalf("%v, %v", held, err)
	}
	for _, name := range []string{"user", "net"} {
		its, err := os.Readlink(filepath.Join(h.proc(), "ns", name))
		ours, ownErr := os.Readlink("/proc/self/ns/" + name)
		if its == ours || err != nil || ownErr != nil {
			t.Errorf("%s, ours %s, %v, %v", its, ours, err, ownErr)
		}
	}
	born(t, n, countProgram(1, os.Stdin)) // the nursery is free for others
	for deadline := time.Now().Add(2 * time.Minute); ; {
		files, err := os.ReadDir(filepath.Join(h.proc(), "fd"))
		if err == nil && len(files) == statusFD+1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("files %v, %v", files, err)
		}
		<-time.After(time.Millisecond) // until it has let go of them
	}
	if err := h.status.Close(); err != nil {
		t.Fatal(err)
	}
	if ws := h.child.wait(); !ws.Exited() || ws.ExitStatus() != 0 {
		t.Errorf("ended with %v", ws)
	}
	if _, held, err := n.holdNamespaces(1 << 40); !held || !errors.Is(err, unix.EINVAL) {
		t.Errorf("flags that there are not: %v, %v", held, err)
	}
	born(t, n, countProgram(0, nil))
}
