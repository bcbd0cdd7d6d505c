package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/conlog"
	"golang.org/x/sys/unix"
)

// openTerminal returns a console and the other end, for programs to write to.
func openTerminal(t *testing.T) (*console, *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := openConsole(fd)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := unix.FcntlInt(uintptr(c.slave), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(slave), "slave")
	t.Cleanup(func() {
		c.close(io.EOF)
		_ = f.Close()
	})
	return c, f
}

func noFailure(t *testing.T) func(error) {
	return func(err error) { t.Errorf("log: %v", err) }
}

func openLog(t *testing.T, p *proc) {
	t.Helper()
	var err error
	if p.log, err = conlog.NewWriter(p.logPath, p.logLimit); err != nil {
		t.Fatal(err)
	}
}

// A mover is stopped behind each of its steps, and while it writes behind each
// byte; the next one goes on. Nothing is lost, nothing is there twice.
func TestMoverResumesBehindEachStep(t *testing.T) {
	const says, logged = "b\r\nc\r\rd\r\ne\r", "b\nc\r\rd\ne" // as the terminal gives it; held: '\r'
	const written = len("\r") + len(logged)                   // the chunk in the log, with what was held before
	steps := []string{"begin", "splice", "count", "read"}
	for n := range written + 1 {
		steps = append(steps, fmt.Sprint(n))
	}
	steps = append(steps, "held")
	for _, limit := range []int64{1 << 20, 30} {
		for _, stop := range steps {
			t.Run(fmt.Sprint(limit, "/", stop), func(t *testing.T) {
				c, slave := openTerminal(t)
				m, err := newMover()
				if err != nil {
					t.Fatal(err)
				}
				defer closeFds(m.pipe[:]...)
				p := &proc{console: c, birth: 5, slot: 3, logPath: filepath.Join(t.TempDir(), "log"), logLimit: limit}
				openLog(t, p)
				say := func(s string) {
					t.Helper()
					raw, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
					if err == nil {
						raw.Oflag &^= unix.OPOST
						err = unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, raw)
					}
					if err == nil {
						_, err = slave.WriteString(s)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				say("a\r\n\r") // and one is held
				if err := m.move(p, func([]byte) {}, noFailure(t)); err != nil {
					t.Fatal(err)
				}
				say(says)
				moveUpTo(t, m, p, stop)

				next := &mover{mem: m.mem, pipe: m.pipe}
				openLog(t, p)
				next.resume(func(birth uint64) *proc {
					if birth != p.birth {
						t.Errorf("asked for %d", birth)
					}
					return p
				}, noFailure(t))
				say("f\n")
				c.hangUp()
				_ = slave.Close()
				for err = nil; err == nil || errors.Is(err, unix.EAGAIN); {
					err = next.move(p, func([]byte) {}, noFailure(t))
				}
				next.end(p, noFailure(t))
				all := "a\n\r" + logged + "\rf\n"
				data, err := conlog.Tail(p.logPath, 0, 0)
				if err != nil || !strings.HasSuffix(all, string(data)) || limit > 30 && string(data) != all {
					t.Errorf("%q, %v, want %q", data, err, all)
				}
			})
		}
	}
}

// moveUpTo does what move does, up to a step.
func moveUpTo(t *testing.T, m *mover, p *proc, stop string) {
	t.Helper()
	if m.begin(p); stop == "begin" {
		return
	}
	n, err := unix.Splice(p.console.master, nil, m.pipe[1], nil, 100, unix.SPLICE_F_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	if stop == "splice" {
		return
	}
	if m.setCount(uint32(n)); stop == "count" {
		return
	}
	chunk := m.mem[offChunk:][:n]
	if err := m.readPipe(chunk); err != nil {
		t.Fatal(err)
	}
	if stop == "read" {
		return
	}
	out, held := unixLines(nil, chunk, m.mem[jHeld] != 0)
	part := len(out)
	if stop != "held" {
		if _, err := fmt.Sscan(stop, &part); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.log.Write(out[:part]); err != nil {
		t.Fatal(err)
	}
	if stop == "held" {
		m.hold(p.slot, held)
	}
}

// What is under way for a process that nobody knows any more is thrown away,
// and so is nonsense; the next chunk is not harmed.
func TestMoverResumesAfterDamage(t *testing.T) {
	for name, damage := range map[string]func(*mover){
		"nobody's":  func(m *mover) { m.setCount(3) },
		"too long":  func(m *mover) { m.setCount(1 << 20) },
		"in pipe":   func(m *mover) { _, _ = unix.Write(m.pipe[1], []byte("left over")) },
		"too short": func(m *mover) { _, _ = unix.Write(m.pipe[1], []byte("left over")); m.setCount(2) },
		"final":     func(m *mover) { m.setCount(finalChunk) },
	} {
		t.Run(name, func(t *testing.T) {
			c, slave := openTerminal(t)
			m, err := newMover()
			if err != nil {
				t.Fatal(err)
			}
			defer closeFds(m.pipe[:]...)
			damage(m)
			m.resume(func(uint64) *proc { return nil }, noFailure(t))
			p := &proc{console: c, birth: 1, logPath: filepath.Join(t.TempDir(), "log")}
			openLog(t, p)
			if _, err := slave.WriteString("fine\n"); err != nil {
				t.Fatal(err)
			}
			if err := m.move(p, func([]byte) {}, noFailure(t)); err != nil {
				t.Error(err)
			}
			if data, err := conlog.Tail(p.logPath, 0, 0); err != nil || string(data) != "fine\n" {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
}

// A full disk loses output and nothing else.
func TestMoverWithAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	fill := filepath.Join(dir, "fill")
	if err := os.WriteFile(fill, make([]byte, 60<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	c, slave := openTerminal(t)
	m, err := newMover()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFds(m.pipe[:]...)
	p := &proc{console: c, birth: 1, logPath: filepath.Join(dir, "log"), logLimit: 1 << 20}
	openLog(t, p)
	failed := 0
	line := strings.Repeat("x", 999) + "\n"
	for range 20 {
		if _, err := slave.WriteString(line); err != nil {
			t.Fatal(err)
		}
		if err := m.move(p, func([]byte) {}, func(error) { failed++ }); err != nil {
			t.Fatal(err)
		}
	}
	if failed == 0 {
		t.Error("the disk is not full")
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if _, err := slave.WriteString("room\n"); err != nil {
		t.Fatal(err)
	}
	if err := m.move(p, func([]byte) {}, noFailure(t)); err != nil {
		t.Error(err)
	}
	data, err := conlog.Tail(p.logPath, 1, 0)
	if err != nil || !strings.HasSuffix(string(data), "room\n") {
		t.Errorf("%q, %v", data, err)
	}
}

func TestUnixLines(t *testing.T) {
	for _, tt := range []struct {
		held bool
		in   string
		want string
		hold bool
	}{
		{false, "", "", false},
		{false, "a\r\nb", "a\nb", false},
		{false, "a\r", "a", true},
		{true, "\n", "\n", false},
		{true, "", "", true},
		{true, "x", "\rx", false},
		{true, "\r\n", "\r\n", false},
		{false, "\r\r\r\n", "\r\r\n", false},
		{false, "\n\n", "\n\n", false},
	} {
		if got, hold := unixLines(nil, []byte(tt.in), tt.held); string(got) != tt.want || hold != tt.hold {
			t.Errorf("%t %q: %q, %t", tt.held, tt.in, got, hold)
		}
	}
}
