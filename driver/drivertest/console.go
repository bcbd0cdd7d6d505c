package drivertest

import (
	"bytes"
	"io"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// testConsoleStream: a terminal that several look at and type on.
func testConsoleStream(t *testing.T, e *env) {
	c, ok := e.d.(driver.ConsoleStreamer)
	if !ok {
		return
	}
	ctx := t.Context()
	_, err := c.OpenConsole(ctx, NewUUID())
	wantClass(t, "console of the absent", err, errdefs.ErrNotFound)
	req := e.spawn(t)
	open := func() driver.ConsoleStream {
		t.Helper()
		s, err := c.OpenConsole(ctx, req.UUID)
		if err != nil {
			t.Fatalf("OpenConsole: %v", err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	first := open()
	said := readTo(t, first, "\r\n") // the guest's first line, said before or after
	second := open()
	if again := readTo(t, second, "\r\n"); !bytes.HasPrefix(again, said) && !bytes.HasPrefix(said, again) {
		t.Errorf("history begins with %q, want %q", again, said)
	}
	if _, err := io.WriteString(second, "knock\r"); err != nil {
		t.Errorf("Write: %v", err)
	}
	readTo(t, first, "knock\r\n")
	readTo(t, second, "knock\r\n")
	third := open()
	if all := readTo(t, third, "knock\r\n"); bytes.Count(all, []byte("knock")) != 1 {
		t.Errorf("history tells twice: %q", all)
	}
	if err := first.Resize(ctx, 33, 101); err != nil {
		t.Errorf("Resize: %v", err)
	}
	wantClass(t, "size of zero", first.Resize(ctx, 0, 80), errdefs.ErrInvalid)
	if err := first.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := io.ReadAll(first); err == nil {
		t.Error("reading after Close is the end of the instance")
	}
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(second); err != nil {
		t.Errorf("reading at the end of the instance: %v, want the end", err)
	}
	_, err = c.OpenConsole(ctx, req.UUID)
	wantClass(t, "console of the stopped", err, errdefs.ErrConflict)
}

// readTo reads until the end of what was read is, and returns all of it.
func readTo(t *testing.T, r io.Reader, end string) []byte {
	t.Helper()
	var all []byte
	done := make(chan error, 1)
	go func() {
		b := make([]byte, 1)
		for !bytes.HasSuffix(all, []byte(end)) {
			if _, err := io.ReadFull(r, b); err != nil {
				done <- err
				return
			}
			all = append(all, b...)
		}
		done <- nil
	}()
	var err error
	wait(t, "a console that says "+end, func() bool {
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	if err != nil {
		t.Fatalf("read a console: %v", err)
	}
	return all
}
