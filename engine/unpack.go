package engine

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// An Unpacker is layer.Apply, or does the same somewhere safer
// (engine/layer/jail). An error of class errdefs.ErrUnsupported before it has
// read anything says that the host cannot do it so.
type Unpacker func(ctx context.Context, dir *os.File, r io.Reader, opts layer.Options) (layer.Result, error)

// unpackLayer unpacks a stream as the options say. On a host that cannot do
// that it is done in this process, with a warning for the life of the engine:
// what protects the host then is layer.Apply itself, which is safe against
// hostile paths but shares the service's privileges and memory.
func (e *Engine) unpackLayer(ctx context.Context, dir *os.File, r io.Reader, opts layer.Options) (layer.Result, error) {
	if e.opts.Unpack == nil {
		return layer.Apply(ctx, dir, r, opts)
	}
	seen := &touched{r: r}
	res, err := e.opts.Unpack(ctx, dir, seen, opts)
	if !errors.Is(err, errdefs.ErrUnsupported) || seen.touched {
		return res, err
	}
	e.warnUnjailed(err)
	return layer.Apply(ctx, dir, r, opts)
}

// warnUnjailed says once what this host cannot do.
func (e *Engine) warnUnjailed(err error) {
	e.unjailed.Do(func() {
		e.opts.Log.Warn().Err(err).Str("cost", "an error in reading images could harm the service").Msg("images are unpacked without a jail")
	})
}

// touched notes that something was read.
type touched struct {
	r       io.Reader
	touched bool
}

// Read implements io.Reader.
func (t *touched) Read(p []byte) (int, error) {
	t.touched = true
	return t.r.Read(p)
}
