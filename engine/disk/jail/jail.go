// Package jail reads and writes disk images in a child process that can do nothing else
// (engine/jail): it has no capability, no file but the image, read-only, and the
// pipe that the tar stream goes into, and no system call but those that Go's
// runtime needs and reading and writing of what is open.
//
// It imports engine/jail and engine/disk of ours. docs/images.md and
// docs/unpacking.md have the reasons.
package jail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/jail"
)

// name of the work.
const name = "disk"

// Converter converts disk images. Its methods are safe for concurrent use.
type Converter struct{ jail *jail.Jail }

// New returns a Converter whose children are of the jail.
func New(j *jail.Jail) *Converter { return &Converter{j} }

// Work is what the child does.
func Work() jail.Work { return jail.Work{Name: name, Do: convert} }

// request is what the child is told.
type request struct {
	Size    int64
	Options disk.Options
}

func convert(ctx context.Context, arg json.RawMessage, _ *os.File) (any, error) {
	var req request
	if err := json.Unmarshal(arg, &req); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	rep, err := disk.Convert(ctx, os.Stdin, req.Size, req.Options, os.Stdout)
	return rep, err
}

// Convert is disk.Convert in a child; r must be a file: it has a method Fd. Where
// w is an *os.File the child writes to it. jail.ErrImpossible, with nothing
// written, if the host cannot make such a child or r is no file.
func (c *Converter) Convert(ctx context.Context, r io.ReaderAt, size int64, opts disk.Options, w io.Writer) (disk.Report, error) {
	var rep disk.Report
	if out, ok := w.(*os.File); ok {
		child, err := c.start(ctx, r, request{size, opts}, out)
		if err != nil {
			return rep, fmt.Errorf("read disk image: %w", err)
		}
		err = child.Wait(ctx, &rep)
		return rep, err
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return rep, fmt.Errorf("read disk image: %w", err)
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{pr}, make([]byte, 256<<10))
		copied <- errors.Join(err, pr.Close())
	}()
	rep, err = c.Convert(ctx, r, size, opts, pw)
	err = errors.Join(err, pw.Close())
	if cerr := <-copied; cerr != nil && ctx.Err() == nil {
		return rep, cerr
	}
	return rep, err
}

// fileOf is another descriptor of what has one.
func fileOf(r any, what string) (*os.File, error) {
	src, ok := r.(interface{ Fd() uintptr })
	if !ok {
		return nil, fmt.Errorf("the %s is no file: %w", what, jail.ErrImpossible)
	}
	fd, err := unix.FcntlInt(src.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	runtime.KeepAlive(r)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), what), nil
}

// start starts the child with the image as its standard input.
func (c *Converter) start(ctx context.Context, r io.ReaderAt, req request, out *os.File) (*jail.Child, error) {
	in, err := fileOf(r, "image")
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return c.jail.Start(ctx, jail.Run{Work: name, Arg: req, Stdin: in, Stdout: out})
}
