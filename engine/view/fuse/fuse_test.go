package fuse_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/view/fuse"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// What serves is in this process: files are opened without the runtime's poller,
// which asks the server in a call that holds up what the server needs.

// tree is a directory with the file "text", which says what say returns.
type tree struct{ say func() []byte }

func (f tree) Lookup(dir uint64, name string) (fuse.Entry, error) {
	if dir != 1 || name != "text" {
		return fuse.Entry{}, unix.ENOENT
	}
	return fuse.Entry{Node: 2, Name: name}, nil
}

func (f tree) Stat(node uint64) (fuse.Entry, error) {
	return fuse.Entry{Node: node, Dir: node == 1}, nil
}

func (f tree) List(uint64) ([]fuse.Entry, error) { return []fuse.Entry{{Node: 2, Name: "text"}}, nil }
func (f tree) Read(int, uint64) ([]byte, error)  { return f.say(), nil }

// mounted is a mount with the memory of its servers.
func mounted(t *testing.T) (dir string, device *os.File, memory []byte) {
	t.Helper()
	dir = t.TempDir()
	device, err := fuse.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(fuse.Unmount(dir), fuse.Unmount(dir), device.Close()); err != nil {
			t.Error(err)
		}
	})
	return dir, device, after(t, nil)
}

// after is the memory that the next server finds, as if the one before were gone
// at this moment. It is no memory of Go's, as it is none in a server.
func after(t *testing.T, before []byte) []byte {
	t.Helper()
	memory, err := unix.Mmap(-1, 0, fuse.MemorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	copy(memory, before)
	return memory
}

// serve serves until the mount is gone.
func serve(t *testing.T, device *os.File, memory []byte, f fuse.Tree) {
	t.Helper()
	c, err := fuse.New(fuse.Options{Device: int(device.Fd()), Memory: memory, Tree: f})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.Serve() }() // ends with the mount, or when the device is closed
}

func TestFiles(t *testing.T) {
	dir, device, memory := mounted(t)
	var n atomic.Int64
	text := bytes.Repeat([]byte("a line of text\n"), 20000) // more than one answer holds
	serve(t, device, memory, tree{func() []byte { n.Add(1); return text }})
	name := filepath.Join(dir, "text")
	for range 2 {
		if got, err := linux.ReadFile(name); err != nil || !bytes.Equal(got, text) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	}
	in, err := linux.OpenFd(name, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(in)
	out, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for { // as cat of busybox does
		if sent, err := unix.Sendfile(int(out.Fd()), in, nil, 1<<20); err != nil {
			t.Fatal(err)
		} else if sent == 0 {
			break
		}
	}
	if got, err := os.ReadFile(out.Name()); err != nil || !bytes.Equal(got, text) {
		t.Errorf("sendfile: %d bytes, %v", len(got), err)
	}
	if st, err := os.Stat(name); err != nil || st.Mode() != 0o444 || st.Size() != int64(len(text)) {
		t.Errorf("%v, %v", st, err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 || list[0].Name() != "text" {
		t.Errorf("%v, %v", list, err)
	}
	for _, bad := range []error{
		unix.Truncate(name, 0), os.Remove(name), os.Mkdir(filepath.Join(dir, "x"), 0o700), os.Chmod(name, 0o777),
	} {
		if !errors.Is(bad, unix.EROFS) {
			t.Errorf("a change: %v", bad)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

// A server that has taken a request and never answers, as one that is killed
// does, is followed by one that answers it.
func TestTakeOver(t *testing.T) {
	dir, device, memory := mounted(t)
	taken, stuck := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	serve(t, device, memory, tree{func() []byte {
		if first.CompareAndSwap(false, true) {
			close(taken)
			<-stuck
			return []byte("late")
		}
		return []byte("here")
	}})
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := linux.ReadFile(filepath.Join(dir, "text"))
		done <- result{text, err}
	}()
	<-taken
	serve(t, device, after(t, memory), tree{func() []byte { return []byte("here") }})
	if r := <-done; r.err != nil || string(r.text) != "here" {
		t.Errorf("%q, %v", r.text, r.err)
	}
	close(stuck) // its late answer counts for nothing
	if text, err := linux.ReadFile(filepath.Join(dir, "text")); err != nil || string(text) != "here" {
		t.Errorf("%q, %v", text, err)
	}
}

// A request that has ended eight servers is refused by the next.
func TestRequestThatKills(t *testing.T) {
	dir, device, memory := mounted(t)
	stuck := make(chan struct{})
	defer close(stuck)
	done, asked := make(chan error, 1), false
	for range 8 {
		taken := make(chan struct{}, 8)
		serve(t, device, memory, tree{func() []byte { taken <- struct{}{}; <-stuck; return nil }})
		if !asked {
			asked = true
			go func() {
				_, err := os.Stat(filepath.Join(dir, "text"))
				done <- err
			}()
		}
		<-taken
		memory = after(t, memory) // as if that server were gone
	}
	serve(t, device, memory, tree{func() []byte { return nil }})
	if err := <-done; !errors.Is(err, unix.EIO) {
		t.Errorf("the request that kills: %v", err)
	}
}

func TestRefused(t *testing.T) {
	if _, err := fuse.New(fuse.Options{Memory: make([]byte, 10)}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("too little memory: %v", err)
	}
	if _, err := fuse.Mount(filepath.Join(t.TempDir(), "absent")); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("no directory: %v", err)
	}
	if err := fuse.Unmount(t.TempDir()); err != nil {
		t.Errorf("nothing mounted: %v", err)
	}
	if err := fuse.Supported(); err != nil {
		t.Error(err)
	}
}
