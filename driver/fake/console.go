package fake

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// viewerBuffer is by how much a viewer may be behind.
const viewerBuffer = 256 << 10

// viewer is a connection to the console of an instance. The guest echoes.
type viewer struct {
	d    *Driver
	uuid driver.InstanceUUID
	more *sync.Cond // of Host.mu
	buf  []byte     // guarded by Host.mu
	err  error      // guarded by Host.mu
}

// OpenConsole implements driver.ConsoleStreamer.
func (d *Driver) OpenConsole(_ context.Context, uuid driver.InstanceUUID) (driver.ConsoleStream, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("open console of", uuid)
	if err != nil {
		return nil, err
	}
	if i.state != driver.PowerRunning && i.state != driver.PowerPaused {
		return nil, fmt.Errorf("open console of %s: it does not run: %w", uuid, errdefs.ErrConflict)
	}
	v := &viewer{d: d, uuid: uuid, more: sync.NewCond(&d.host.mu), buf: terminalLines(i.console)}
	i.viewers = append(i.viewers, v)
	return v, nil
}

func terminalLines(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")) }

// ConsoleSize is what a viewer has last set, zeros before.
func (d *Driver) ConsoleSize(uuid driver.InstanceUUID) (rows, cols uint16) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if i := d.host.instances[uuid]; i != nil {
		return i.rows, i.cols
	}
	return 0, 0
}

// say adds to the console and shows it. It must be called with Host.mu held.
func (i *instance) say(text []byte) {
	i.console = append(i.console, text...)
	for _, v := range i.viewers {
		if len(v.buf)+len(text) > viewerBuffer {
			v.end(fmt.Errorf("console of %s: too slow: %w", v.uuid, errdefs.ErrExhausted))
		} else if v.err == nil {
			v.buf = append(v.buf, terminalLines(text)...)
			v.more.Broadcast()
		}
	}
}

// hangUp ends all viewers. It must be called with Host.mu held.
func (i *instance) hangUp() {
	for _, v := range i.viewers {
		v.end(io.EOF)
	}
	i.viewers = nil
}

// end must be called with Host.mu held.
func (v *viewer) end(err error) {
	if v.err == nil {
		v.err = err
	}
	v.more.Broadcast()
}

// Read implements io.Reader.
func (v *viewer) Read(p []byte) (int, error) {
	v.d.host.mu.Lock()
	defer v.d.host.mu.Unlock()
	for len(v.buf) == 0 && v.err == nil {
		v.more.Wait()
	}
	if len(v.buf) == 0 {
		return 0, v.err
	}
	n := copy(p, v.buf)
	v.buf = v.buf[n:]
	return n, nil
}

// Write implements io.Writer.
func (v *viewer) Write(p []byte) (int, error) {
	v.d.host.mu.Lock()
	defer v.d.host.mu.Unlock()
	i := v.d.host.instances[v.uuid]
	if v.err != nil || i == nil {
		return 0, fmt.Errorf("console of %s: %w", v.uuid, os.ErrClosed)
	}
	i.say(bytes.ReplaceAll(p, []byte("\r"), []byte("\n")))
	return len(p), nil
}

// Resize implements driver.ConsoleStream.
func (v *viewer) Resize(_ context.Context, rows, cols uint16) error {
	if rows == 0 || cols == 0 {
		return fmt.Errorf("resize console of %s to %d by %d: %w", v.uuid, rows, cols, errdefs.ErrInvalid)
	}
	v.d.host.mu.Lock()
	defer v.d.host.mu.Unlock()
	i, err := v.d.host.get("resize console of", v.uuid)
	if err != nil {
		return err
	}
	i.rows, i.cols = rows, cols
	return nil
}

// Close implements io.Closer.
func (v *viewer) Close() error {
	v.d.host.mu.Lock()
	defer v.d.host.mu.Unlock()
	v.end(os.ErrClosed)
	if i := v.d.host.instances[v.uuid]; i != nil {
		i.viewers = slices.DeleteFunc(i.viewers, func(x *viewer) bool { return x == v })
	}
	return nil
}
