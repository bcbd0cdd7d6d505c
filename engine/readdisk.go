package engine

import (
	"context"
	"errors"
	"io"
	"runtime"

	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/jail"
)

// readDisk is the image.DiskReader of the engine: as the options say, or, on a
// host that cannot do that, in this process with a warning for the life of the
// engine.
func (e *Engine) readDisk(ctx context.Context, r io.ReaderAt, size int64, format string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	s := &diskStream{PipeReader: pr, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		lim := e.opts.LayerLimits
		err := e.convertDisk(ctx, r, size, disk.Options{
			Format: format, Arch: runtime.GOARCH,
			Limits: filesystem.Limits{Bytes: lim.Bytes, Entries: lim.Entries, Depth: lim.Depth, PathLen: lim.PathLen},
		}, pw)
		_ = pw.CloseWithError(err) // never fails
	}()
	return s, nil
}

// diskStream is a tar stream while it is made.
type diskStream struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Close ends the conversion and waits for its end.
func (s *diskStream) Close() error {
	s.cancel()
	err := s.PipeReader.Close()
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
