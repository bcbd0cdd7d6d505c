package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// schema is the version of the layout. Each version and what became different
// in the next one is an entry of upgrades; a store of any other is refused.
const schema = 3

var (
	bucketMeta       = []byte("meta")
	bucketContainers = []byte("containers")
	bucketImages     = []byte("images")
	bucketBlocks     = []byte("blocks")
	bucketLeases     = []byte("leases")
	bucketJournal    = []byte("journal") // of schema 2 only
	keySchema        = []byte("schema")
)

// upgrades bring a store from version i+1 to i+2. All that are needed run in
// one transaction with the change of the version.
var upgrades = [schema - 1]func(*bolt.Tx) error{addChecksums, addLeases}

// prepare makes the buckets of a new store and brings an old one up to date.
func prepare(tx *bolt.Tx) error {
	if tx.Bucket(bucketMeta) == nil {
		for _, name := range [][]byte{bucketMeta, bucketContainers, bucketImages, bucketBlocks, bucketLeases} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return setSchema(tx)
	}
	version, err := schemaOf(tx)
	if err != nil || version == schema {
		return err
	}
	for _, step := range upgrades[version-1:] {
		if err := step(tx); err != nil {
			return fmt.Errorf("upgrade from schema %d: %w", version, err)
		}
	}
	return setSchema(tx)
}

func setSchema(tx *bolt.Tx) error {
	return tx.Bucket(bucketMeta).Put(keySchema, binary.BigEndian.AppendUint64(nil, schema))
}

// schemaOf returns the version of a store that this program can read.
func schemaOf(tx *bolt.Tx) (uint64, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return 0, fmt.Errorf("no schema: %w", errdefs.ErrCorrupt)
	}
	raw := meta.Get(keySchema)
	if len(raw) != 8 {
		return 0, fmt.Errorf("schema %x: %w", raw, errdefs.ErrCorrupt)
	}
	version := binary.BigEndian.Uint64(raw)
	if version < 1 || version > schema {
		return 0, fmt.Errorf("schema %d is of another version of gantry, this one knows 1 to %d; nothing was changed: %w",
			version, schema, errdefs.ErrUnsupported)
	}
	return version, nil
}

// addChecksums: version 1 has records without envelopes.
func addChecksums(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketContainers, bucketImages} {
		bucket := tx.Bucket(name)
		wrapped := map[string][]byte{}
		err := bucket.ForEach(func(k, raw []byte) error {
			stored, err := encode(json.RawMessage(raw))
			if err != nil {
				return nil //nolint:nilerr // damaged before; stays as it is and is named by Damaged
			}
			wrapped[string(k)] = stored
			return nil
		})
		if err != nil {
			return err
		}
		for k, stored := range wrapped {
			if err := bucket.Put([]byte(k), stored); err != nil {
				return err
			}
		}
	}
	return nil
}

// addLeases: version 2 has no leases, and a journal that nothing wrote to.
func addLeases(tx *bolt.Tx) error {
	if tx.Bucket(bucketJournal) != nil {
		if err := tx.DeleteBucket(bucketJournal); err != nil {
			return err
		}
	}
	_, err := tx.CreateBucketIfNotExists(bucketLeases)
	return err
}
