package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestUnpackElsewhere: the engine's unpacker unpacks, and where the host cannot
// have it the process does, which is said once. What it says of the image
// counts.
func TestUnpackElsewhere(t *testing.T) {
	called := 0
	for name, c := range map[string]struct {
		unpack engine.Unpacker
		want   error
		warns  int
	}{
		"it works": {layer.Apply, nil, 0},
		"not here": {func(context.Context, *os.File, io.Reader, layer.Options) (layer.Result, error) {
			return layer.Result{}, errdefs.ErrUnsupported
		}, nil, 1},
		"the image is not supported": {func(_ context.Context, _ *os.File, r io.Reader, _ layer.Options) (layer.Result, error) {
			_, err := r.Read(make([]byte, 1))
			return layer.Result{}, errors.Join(err, errdefs.ErrUnsupported)
		}, errdefs.ErrUnsupported, 0},
		"the image is hostile": {func(context.Context, *os.File, io.Reader, layer.Options) (layer.Result, error) {
			return layer.Result{}, errdefs.ErrInvalid
		}, errdefs.ErrInvalid, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			h := enginetest.NewHost(t)
			h.Log, h.Unpack = &log, func(ctx context.Context, dir *os.File, r io.Reader, o layer.Options) (layer.Result, error) {
				called++
				return c.unpack(ctx, dir, r, o)
			}
			e, done := h.Engine(t)
			defer done()
			before := called
			for _, ref := range []string{"one", "two"} {
				content := enginetest.Busybox(t)
				if ref == "two" { // another archive, or its layer is there already
					content = append(content, make([]byte, 512)...)
				}
				_, err := e.Import(t.Context(), engine.ImportRequest{Ref: ref, Content: bytes.NewReader(content), ContainerFormat: "bare", DiskFormat: "raw"})
				if !errors.Is(err, c.want) {
					t.Errorf("import: %v", err)
				}
			}
			if called != before+2 {
				t.Errorf("called %d times", called-before)
			}
			if n := strings.Count(log.String(), "without a jail"); n != c.warns {
				t.Errorf("%d warnings: %s", n, &log)
			}
		})
	}
}
