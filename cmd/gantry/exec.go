package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/api"
)

func execCommand() *cobra.Command {
	var req api.Exec
	var interactive bool
	cmd := operation("exec [flags] CONTAINER COMMAND...", "run a command in a container and take its status", cobra.MinimumNArgs(2), func(ctx context.Context, c *api.Client, _ *target, _ *cobra.Command, args []string) error {
		req.Args = args[1:]
		if req.Terminal {
			return execTerminal(ctx, c, args[0], req, interactive)
		}
		return execPlain(ctx, c, args[0], req, interactive)
	})
	f := cmd.Flags()
	f.BoolVarP(&interactive, "interactive", "i", false, "pass standard input")
	f.BoolVarP(&req.Terminal, "tty", "t", false, "on a terminal of its own")
	f.BoolVarP(&req.Detach, "detach", "d", false, "leave it running")
	f.StringArrayVarP(&req.Env, "env", "e", nil, "NAME=VALUE to add to the container's environment")
	f.StringVarP(&req.User, "user", "u", "", "user[:group]")
	f.StringVarP(&req.Cwd, "cwd", "w", "", "working directory")
	f.SetInterspersed(false)
	return cmd
}

// isTerminal reports whether the file is a terminal of this host.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// drainTime is how long output may still come when the command has ended: what
// it left running may hold its files for ever.
const drainTime = 200 * time.Millisecond

// execPlain passes this program's own files, but for terminals: a container
// that holds a terminal of the host could write to it later, and type into it.
func execPlain(ctx context.Context, c *api.Client, id string, req api.Exec, interactive bool) (err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p := &pumps{}
	defer p.close()
	files := [3]*os.File{null, os.Stdout, os.Stderr}
	if interactive {
		files[0] = os.Stdin
	}
	if req.Detach {
		files = [3]*os.File{null, null, null}
	}
	for i, f := range files {
		if f == null || !isTerminal(f) {
			continue
		}
		if files[i], err = p.pipe(f, i == 0); err != nil {
			return err
		}
	}
	run, err := c.Exec(ctx, id, req, files)
	p.passed()
	if err != nil || req.Detach {
		return err
	}
	defer run.Close()
	exit, err := run.Wait(ctx)
	if err != nil {
		return err
	}
	p.drain()
	return status(exit)
}

// pumps stand between terminals and the pipes that a command gets for them.
type pumps struct {
	theirs, ours []*os.File
	out          sync.WaitGroup
}

func (p *pumps) pipe(terminal *os.File, input bool) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if input {
		p.theirs, p.ours = append(p.theirs, r), append(p.ours, w)
		go func() { // ends with the program
			_, _ = io.Copy(w, terminal)
			_ = w.Close()
		}()
		return r, nil
	}
	p.theirs, p.ours = append(p.theirs, w), append(p.ours, r)
	p.out.Go(func() { _, _ = io.Copy(terminal, r) })
	return w, nil
}

// passed lets go of the command's ends.
func (p *pumps) passed() {
	for _, f := range p.theirs {
		_ = f.Close()
	}
	p.theirs = nil
}

func (p *pumps) drain() {
	for _, f := range p.ours {
		_ = f.SetReadDeadline(time.Now().Add(drainTime))
	}
	p.out.Wait()
}

func (p *pumps) close() {
	p.passed()
	for _, f := range p.ours {
		_ = f.Close()
	}
}

// execTerminal puts this terminal's keys and size through to the command's.
func execTerminal(ctx context.Context, c *api.Client, id string, req api.Exec, interactive bool) error {
	if ws, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil {
		req.Rows, req.Columns = ws.Row, ws.Col
	}
	run, master, err := c.ExecTerminal(ctx, id, req)
	if err != nil {
		return err
	}
	defer run.Close()
	defer master.Close()
	restore := func() {}
	if interactive && isTerminal(os.Stdin) {
		if restore, err = raw(os.Stdin); err != nil {
			return err
		}
	}
	defer restore()
	defer followSize(master)()
	if interactive {
		go func() { // ends with the program
			_, err := io.Copy(master, os.Stdin)
			if err == nil && !isTerminal(os.Stdin) {
				_, _ = master.Write([]byte{4}) // the end of a file, on a terminal
			}
		}()
	}
	said := make(chan struct{})
	go func() {
		defer close(said)
		_, _ = io.Copy(os.Stdout, master) // ends with EIO when nobody has the terminal any more
	}()
	exit, err := run.Wait(ctx)
	if err != nil {
		return err
	}
	_ = master.SetReadDeadline(time.Now().Add(drainTime))
	<-said
	return status(exit)
}

// raw lets all keys through; the result puts things right again.
func raw(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, os.NewSyscallError("ioctl TCGETS", err)
	}
	now := *before
	now.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	now.Oflag &^= unix.OPOST
	now.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	now.Cflag = now.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &now); err != nil {
		return nil, os.NewSyscallError("ioctl TCSETS", err)
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}

// followSize keeps the size of the command's terminal that of this one.
func followSize(master *os.File) (stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	done := make(chan struct{})
	conn, err := master.SyscallConn()
	if err != nil {
		return func() {}
	}
	go func() {
		for {
			select {
			case <-changed:
				if ws, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil {
					_ = conn.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, ws) })
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(changed); close(done) }
}
