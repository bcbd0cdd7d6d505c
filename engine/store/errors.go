package store

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// diskError gives the errors of a file system their class.
func diskError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", errdefs.ErrExhausted, err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO):
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	return err
}
