package store

import (
	"encoding/json"
	"fmt"
	"hash/crc32"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// recordVersion is the version of the form of single records. A record of
// another version is treated as damaged: it is kept, named and not used.
const recordVersion = 1

// envelope is a record as it is stored: readable, and with a checksum, because
// a torn or flipped byte may still be well-formed JSON.
type envelope struct {
	Version int    `json:"v"`
	CRC32C  uint32 `json:"crc32c"` // of Record as it stands
	// Record is the JSON of a Container, Image or Intent.
	Record json.RawMessage `json:"record"`
}

func checksum(raw []byte) uint32 {
	return crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli))
}

// encode makes the stored form of v.
func encode(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{Version: recordVersion, CRC32C: checksum(raw), Record: raw})
}

// versionOf returns the version of a stored record, 0 if it has none.
func versionOf(stored []byte) int {
	var e struct {
		Version int `json:"v"`
	}
	if json.Unmarshal(stored, &e) != nil {
		return 0
	}
	return e.Version
}

// decode reads the stored form into v. Every error is errdefs.ErrCorrupt.
func decode(stored []byte, v any) error {
	var e envelope
	if err := json.Unmarshal(stored, &e); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrCorrupt, err)
	}
	if e.Version != recordVersion {
		return fmt.Errorf("record version %d, want %d: %w", e.Version, recordVersion, errdefs.ErrCorrupt)
	}
	if got := checksum(e.Record); got != e.CRC32C {
		return fmt.Errorf("checksum %08x, want %08x: %w", got, e.CRC32C, errdefs.ErrCorrupt)
	}
	if err := json.Unmarshal(e.Record, v); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrCorrupt, err)
	}
	return nil
}
