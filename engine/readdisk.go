package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/jail"
)

// readDisk is the image.DiskReader of the engine: as the options say, or, on a
// host that cannot do that, in this process with a warning for the life of the
// engine.
func (e *Engine) readDisk(ctx context.Context, r io.ReaderAt, size int64, format string) (io.ReadCloser, error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// as much as the host gives: who writes is not to wait for who reads
	_, _ = unix.FcntlInt(pw.Fd(), unix.F_SETPIPE_SZ, 1<<20)
	ctx, cancel := context.WithCancel(ctx)
	s := &diskStream{pipe: pr, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		lim := e.opts.LayerLimits
		s.err = e.convertDisk(ctx, r, size, disk.Options{
			Format: format, Arch: runtime.GOARCH,
			Limits: filesystem.Limits{Bytes: lim.Bytes, Entries: lim.Entries, Depth: lim.Depth, PathLen: lim.PathLen},
		}, pw)
		s.err = errors.Join(s.err, pw.Close())
	}()
	return s, nil
}

// diskStream is a tar stream while it is made.
type diskStream struct {
	pipe   *os.File
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of the conversion, when done is closed
}

// Read implements io.Reader.
func (s *diskStream) Read(p []byte) (int, error) {
	n, err := s.pipe.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	<-s.done
	return n, cmp.Or(s.err, io.EOF)
}

// Close ends the conversion and waits for its end.
func (s *diskStream) Close() error {
	s.cancel()
	err := s.pipe.Close()
	<-s.done
	return err
}

func (e *Engine) convertDisk(ctx context.Context, r io.ReaderAt, size int64, opts disk.Options, w io.Writer) error {
	convert := e.opts.ReadDisk
	if convert == nil {
		convert = disk.Convert
	}
	rep, err := convert(ctx, r, size, opts, w)
	if errors.Is(err, jail.ErrImpossible) {
		e.warnUnjailed(err)
		rep, err = disk.Convert(ctx, r, size, opts, w)
	}
	if err == nil {
		e.opts.Log.Info().Str("format", rep.Format).Str("table", rep.Table).Str("root", rep.Where).Str("filesystem", rep.FileSystem).
			Bool("dirty", rep.Dirty).Int64("entries", rep.Tar.Entries).Int64("devices", rep.Tar.Devices).Int64("skipped", rep.Tar.Sockets+rep.Tar.Skipped).
			Msg("disk image read")
	}
	return err
}
