package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/api"
)

// detachKey ends an attachment: Ctrl-].
const detachKey = 0x1d

func attachCommand() *cobra.Command {
	return operation("attach CONTAINER", "take over the console of a container; Ctrl-] leaves it", cobra.ExactArgs(1), func(ctx context.Context, c *api.Client, _ *target, _ *cobra.Command, args []string) error {
		a, err := c.Attach(ctx, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = a.Close() }()
		if isTerminal(os.Stdin) {
			restore, err := raw(os.Stdin)
			if err != nil {
				return err
			}
			defer restore()
		}
		defer resizeConsole(ctx, c, args[0])()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		left := make(chan struct{})
		go func() { // ends with the program at the latest
			if untilKey(a, os.Stdin) {
				close(left)
				cancel()
			}
		}()
		said := make(chan struct{})
		go func() {
			defer close(said)
			_, _ = io.Copy(os.Stdout, a) // what it ends with is Wait's
		}()
		exit, err := a.Wait(ctx)
		select {
		case <-left:
			return nil
		default:
		}
		if err != nil {
			return err
		}
		<-said
		return status(exit)
	})
}

// untilKey copies input and reports whether the key to leave was pressed.
func untilKey(w io.Writer, r io.Reader) bool {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		i := bytes.IndexByte(buf[:n], detachKey)
		if i >= 0 {
			n = i
		}
		if _, werr := w.Write(buf[:n]); werr != nil || err != nil {
			return false
		}
		if i >= 0 {
			return true
		}
	}
}

// resizeConsole keeps the size of a console that of this terminal.
func resizeConsole(ctx context.Context, c *api.Client, id string) (stop func()) {
	set := func() {
		if ws, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil && ws.Row > 0 && ws.Col > 0 {
			_ = c.Resize(ctx, id, api.Size{Rows: ws.Row, Columns: ws.Col}) // a size is a help, no more
		}
	}
	set()
	changed, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(changed, unix.SIGWINCH)
	go func() {
		for {
			select {
			case <-changed:
				set()
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(changed); close(done) }
}
