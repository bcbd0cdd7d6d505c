package process

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
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

func TestAtEnd(t *testing.T) {
	p := &proc{id: "c", started: true, ended: make(chan struct{})}
	l := &Local{procs: map[string]*proc{"c": p}}
	if _, err := l.AtEnd("other", nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown process: %v", err)
	}
	var told []int
	listen := func(cancelled bool) {
		t.Helper()
		cancel, err := l.AtEnd("c", func(e Exit) { told = append(told, e.Code) })
		if err != nil {
			t.Fatal(err)
		}
		if cancelled {
			cancel()
		}
	}
	listen(false)
	listen(true)
	p.exit = Exit{Code: 7}
	close(p.ended)
	l.tellEnd(p)
	if len(told) != 1 || told[0] != 7 {
		t.Errorf("at the end: %v", told)
	}
	listen(true) // it has ended: at once
	if len(told) != 2 || told[1] != 7 {
		t.Errorf("after the end: %v", told)
	}
	l.tellEnd(p)
	if len(told) != 2 {
		t.Errorf("told again: %v", told)
	}
}
