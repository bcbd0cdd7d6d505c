package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// decode reads one document and refuses what is not part of it: a misspelled
// limit must not be no limit.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("request: %w: %w", err, errdefs.ErrInvalid)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("request: something follows the document: %w", errdefs.ErrInvalid)
	}
	return nil
}
