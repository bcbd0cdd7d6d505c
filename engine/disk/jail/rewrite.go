package jail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/filesystem/ext"
	"github.com/gantry-project/gantry/engine/jail"
)

// The names of the two pieces of work of a disk.Rewriter.
const (
	frameName = "disk frame"
	fillName  = "disk fill"
)

// RewriteWorks is what the children of CopyFrame and Fill do.
func RewriteWorks() []jail.Work {
	calls := []uintptr{unix.SYS_PWRITE64}
	return []jail.Work{{Name: frameName, Do: copyFrame, Calls: calls}, {Name: fillName, Do: fill, Calls: calls}}
}

// frameRequest is what the child of CopyFrame is told.
type frameRequest struct {
	request
	Need ext.Need
}

func copyFrame(ctx context.Context, arg json.RawMessage, _ *os.File) (any, error) {
	var req frameRequest
	if err := json.Unmarshal(arg, &req); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	return disk.Direct{}.CopyFrame(ctx, os.Stdin, req.Size, req.Options, req.Need, os.Stdout)
}

func fill(ctx context.Context, arg json.RawMessage, _ *os.File) (any, error) {
	var f disk.Frame
	if err := json.Unmarshal(arg, &f); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	return disk.Direct{}.Fill(ctx, f, os.Stdin, os.Stdout)
}

// CopyFrame is disk.Direct's in a child; r and to must be files: they have a
// method Fd. jail.ErrImpossible, with nothing written, if the host cannot make
// such a child, or one of them is no file.
func (c *Converter) CopyFrame(ctx context.Context, r io.ReaderAt, size int64, opts disk.Options, need ext.Need, to ext.Output) (disk.Frame, error) {
	var f disk.Frame
	in, err := fileOf(r, "image")
	if err != nil {
		return f, fmt.Errorf("copy disk: %w", err)
	}
	defer in.Close()
	err = c.work(ctx, frameName, frameRequest{request{size, opts}, need}, in, to, &f)
	return f, err
}

// Fill is disk.Direct's in a child; to must be a file.
func (c *Converter) Fill(ctx context.Context, f disk.Frame, tree io.Reader, to ext.Output) (ext.Written, error) {
	var done ext.Written
	pr, pw, err := os.Pipe()
	if err != nil {
		return done, fmt.Errorf("fill disk: %w", err)
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{pw}, struct{ io.Reader }{tree}, make([]byte, 256<<10))
		copied <- errors.Join(err, pw.Close())
	}()
	err = c.work(ctx, fillName, f, pr, to, &done)
	// a child that has ended reads nothing more
	rerr := pr.Close()
	if cerr := <-copied; cerr != nil && !errors.Is(cerr, unix.EPIPE) {
		return done, fmt.Errorf("fill disk: %w", cerr) // the child saw a stream that was cut off
	}
	return done, errors.Join(err, rerr)
}

// work does one piece of work in a child.
func (c *Converter) work(ctx context.Context, name string, arg any, in *os.File, to ext.Output, result any) error {
	out, err := fileOf(to, "disk")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	child, err := c.jail.Start(ctx, jail.Run{Work: name, Arg: arg, Stdin: in, Stdout: out})
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return child.Wait(ctx, result)
}
