package process

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// A birth is a program on its way: the child that launch started and what it
// has said on its status socket.
type birth struct {
	prog   *Program
	child  *forked
	status *os.File
	// serve does what the child waits for (recordPrepared to recordListener);
	// nil where a program asks for nothing.
	serve func(ctx context.Context, b *birth, kind uint32, val uint64) error
	ask   func(kind uint32, val uint64) error // serve, while await waits

	pid    int      // of the first process, 0 until reported
	pidfd  *os.File // of pid
	master *os.File // of the console, nil if none was sent
	ready  bool     // the command was about to be executed
	gated  bool     // the child waits at its gate
	failed error    // of the step that failed
	dying  bool     // kill was called
	early  *plea    // came before pid
}

// killGrace is how long a killed child may take to let go of its socket.
const killGrace = 5 * time.Second

// await reads messages until the child has replaced itself (or waits at its
// gate, or is gone, or ctx has ended), reaps the forking child, and returns nil if the command runs
// or waits.
// On error nothing of the child is left.
func (b *birth) await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = b.status.SetReadDeadline(time.Now()) })
	b.ask = func(kind uint32, val uint64) error { return b.serve(ctx, b, kind, val) }
	err := b.read(func() bool { return b.gated && b.pid != 0 })
	if !stop() && ctx.Err() != nil && err != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), errdefs.ErrAborted)
	}
	if err != nil {
		b.kill()
		return err
	}
	b.child.wait()
	switch {
	case b.failed != nil:
		err = b.failed
	case b.pid == 0 || !b.ready && !b.gated || b.pidfd == nil:
		err = errors.New("set-up process was killed")
	}
	if err != nil {
		b.kill()
	}
	return err
}

// read takes messages until enough says so or the socket is closed by its last
// holder.
func (b *birth) read(enough func() bool) error {
	buf := make([]byte, recordSize)
	for !enough() {
		n, files, err := linux.RecvFiles(b.status, buf, 1)
		if err != nil {
			return fmt.Errorf("read set-up status: %w", err)
		}
		if n == 0 {
			return nil
		}
		if n != recordSize {
			linux.CloseAll(files)
			return fmt.Errorf("read set-up status: message of %d bytes", n)
		}
		if err := b.take(buf, files); err != nil {
			return err
		}
	}
	return nil
}

func (b *birth) take(record []byte, files []*os.File) error {
	le := binary.LittleEndian
	kind, index, val := le.Uint32(record), le.Uint32(record[4:]), le.Uint64(record[8:])
	if kind == recordConsole && len(files) == 1 && b.master == nil {
		b.master = files[0]
		if b.dying {
			return nil
		}
		return b.answer(kind, val)
	}
	linux.CloseAll(files)
	switch kind {
	case recordPid:
		b.pid = int(val)
		var err error
		if b.pidfd, err = linux.PidfdOpen(b.pid); err == nil && b.early != nil {
			err = b.help(*b.early)
		}
		return err
	case recordReady:
		b.ready = true
		return nil
	case recordGate:
		b.gated = true
		return nil
	case recordPrepared, recordMounted, recordListener, recordCreated:
		if b.pidfd == nil {
			// The child was faster than the parent that is to report it.
			b.early = &plea{kind, val}
			return nil
		}
		return b.help(plea{kind, val})
	case recordFailed:
		b.failed = b.prog.failure(int(index), unix.Errno(val))
		return nil
	}
	return fmt.Errorf("read set-up status: unknown message %d", kind)
}

// A plea is what a child waits for.
type plea struct {
	kind uint32
	val  uint64
}

// help does it and tells the child. One that is to be killed waits for that.
func (b *birth) help(p plea) error {
	b.early = nil
	if b.dying {
		return nil
	}
	if err := b.answer(p.kind, p.val); err != nil {
		return err
	}
	_, err := b.status.Write([]byte{1})
	return err
}

func (b *birth) answer(kind uint32, val uint64) error {
	if b.serve == nil || b.ask == nil {
		return nil
	}
	return b.ask(kind, val)
}

// kill ends and reaps whatever of the birth still lives and closes its files.
func (b *birth) kill() {
	// The forking child must not be killed between fork and report: nobody
	// would know the first process. Unless it hangs, it gets there at once.
	b.dying = true
	_ = b.status.SetReadDeadline(time.Now().Add(killGrace))
	_ = b.read(func() bool { return b.pid != 0 || b.failed != nil })
	b.child.kill()
	if b.pidfd != nil {
		_ = linux.PidfdSignal(b.pidfd, int(unix.SIGKILL))
	}
	b.child.wait()
	if b.pid != 0 {
		_, _ = linux.RetryEINTR(func() (int, error) { return unix.Wait4(b.pid, nil, 0, nil) })
	}
	linux.CloseAll([]*os.File{b.pidfd, b.master})
	b.pidfd, b.master = nil, nil
}
