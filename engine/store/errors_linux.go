package store

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// diskError gives a full disk its class.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", errdefs.ErrExhausted, err)
	}
	return err
}
