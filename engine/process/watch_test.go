package process

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// A guard may hold a terminal after its end: it is nobody's event any more.
func TestClosedTerminalWakesNobody(t *testing.T) {
	w, err := newWatch(&Local{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	c, slave := openTerminal(t)
	parked, err := unix.FcntlInt(uintptr(c.master), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFds(parked)
	p := &proc{id: "c", console: c, fd: -1}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.seat(p, 0) {
		t.Fatal("no slot")
	}
	if err := w.add(p, eventConsole, c.master); err != nil {
		t.Fatal(err)
	}
	c.hangUp()
	_ = slave.Close()
	events := make([]unix.EpollEvent, 1)
	if n, err := unix.EpollWait(w.epfd, events, 0); n != 1 {
		t.Errorf("a terminal that has hung up: %d events, %v", n, err)
	}
	w.release(p, io.EOF)
	if n, err := unix.EpollWait(w.epfd, events, 0); n != 0 {
		t.Errorf("a closed one: %d events, %v", n, err)
	}
}
