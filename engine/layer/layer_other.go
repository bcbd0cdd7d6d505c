//go:build !linux

package layer

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Apply needs Linux.
func Apply(context.Context, *os.File, io.Reader, Options) (Result, error) {
	return Result{}, fmt.Errorf("unpack layer: %w", errdefs.ErrUnsupported)
}

// Diff needs Linux.
func Diff(context.Context, *os.File, io.Writer) (DiffResult, error) {
	return DiffResult{}, fmt.Errorf("write layer: %w", errdefs.ErrUnsupported)
}

// Inherit needs Linux.
func Inherit(*os.File, []string, []*os.File) error {
	return fmt.Errorf("inherit directories: %w", errdefs.ErrUnsupported)
}

// Copy needs Linux.
func Copy(context.Context, *os.File, *os.File) error {
	return fmt.Errorf("copy layer: %w", errdefs.ErrUnsupported)
}

// MarkOpaque needs Linux.
func MarkOpaque(*os.File, []string) error {
	return fmt.Errorf("mark opaque: %w", errdefs.ErrUnsupported)
}
