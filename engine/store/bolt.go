package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// schema is the version of the layout. Version 1 had neither checksums nor the
// journal and is brought up to date; a store of any other version is refused.
const schema = 2

// lockWait is how long an opener waits for another process to let go.
const lockWait = 3 * time.Second

var (
	bucketMeta       = []byte("meta")
	bucketContainers = []byte("containers")
	bucketImages     = []byte("images")
	bucketBlocks     = []byte("blocks")
	bucketJournal    = []byte("journal")
	keySchema        = []byte("schema")
)

// Bolt is a Store in one bbolt file.
type Bolt struct {
	db *bolt.DB
}

// Open opens or makes the store at name. errdefs.ErrConflict says that another
// process has it, errdefs.ErrUnsupported that it has another schema,
// errdefs.ErrCorrupt that it is not a store; then nothing has been changed.
func Open(name string) (*Bolt, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("open store %s: %w", name, err)
	}
	db, err := bolt.Open(name, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open store %s: another gantry uses this state directory: %w", name, errdefs.ErrConflict)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("open store %s: %w: %w", name, errdefs.ErrCorrupt, err)
	case err != nil:
		return nil, fmt.Errorf("open store %s: %w", name, err)
	}
	if err := db.Update(prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", name, err), db.Close())
	}
	return &Bolt{db: db}, nil
}

// prepare makes the buckets of a new store and checks an old one's schema.
func prepare(tx *bolt.Tx) error {
	if meta := tx.Bucket(bucketMeta); meta != nil {
		raw := meta.Get(keySchema)
		switch {
		case len(raw) == 8 && binary.BigEndian.Uint64(raw) == schema:
			return nil
		case len(raw) == 8 && binary.BigEndian.Uint64(raw) == 1:
			return upgrade(tx)
		}
		return fmt.Errorf("schema %x, want %d: %w", raw, schema, errdefs.ErrUnsupported)
	}
	for _, name := range [][]byte{bucketMeta, bucketContainers, bucketImages, bucketBlocks, bucketJournal} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keySchema, binary.BigEndian.AppendUint64(nil, schema))
}

// upgrade brings schema 1 up to date: records get their checksums.
func upgrade(tx *bolt.Tx) error {
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
	if _, err := tx.CreateBucketIfNotExists(bucketJournal); err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keySchema, binary.BigEndian.AppendUint64(nil, schema))
}

// Close lets the store go. Later calls fail.
func (b *Bolt) Close() error { return b.db.Close() }

func (b *Bolt) get(bucket []byte, key string, v any) error {
	err := b.db.View(func(tx *bolt.Tx) error {
		raw := tx.Bucket(bucket).Get([]byte(key))
		if raw == nil {
			return errdefs.ErrNotFound
		}
		return decode(raw, v)
	})
	if err != nil {
		return fmt.Errorf("record %s of %s: %w", key, bucket, err)
	}
	return nil
}

func (b *Bolt) put(bucket []byte, key string, v any) error {
	if key == "" {
		return fmt.Errorf("record of %s without a key: %w", bucket, errdefs.ErrInvalid)
	}
	raw, err := encode(v)
	if err != nil {
		return fmt.Errorf("record %s of %s: %w", key, bucket, err)
	}
	return b.update(bucket, key, func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put([]byte(key), raw) })
}

// update runs a transaction; a full disk gets its class.
func (b *Bolt) update(bucket []byte, key string, fn func(*bolt.Tx) error) error {
	if err := b.db.Update(fn); err != nil {
		return fmt.Errorf("record %s of %s: %w", key, bucket, diskError(err))
	}
	return nil
}

// list reads all records of a bucket into T and calls bad with the key of one
// that cannot be read.
func list[T any](b *Bolt, bucket []byte, bad func(key string)) ([]T, error) {
	var out []T
	err := b.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, raw []byte) error {
			var v T
			if err := decode(raw, &v); err != nil {
				bad(string(bucket) + "/" + string(k))
				return nil //nolint:nilerr // the others are still wanted; Damaged names this one
			}
			out = append(out, v)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", bucket, err)
	}
	return out, nil
}

// Containers implements Store.
func (b *Bolt) Containers(context.Context) ([]Container, error) {
	return list[Container](b, bucketContainers, func(string) {})
}

// Container implements Store.
func (b *Bolt) Container(_ context.Context, id string) (c Container, err error) {
	err = b.get(bucketContainers, id, &c)
	return c, err
}

// CreateContainer implements Store.
func (b *Bolt) CreateContainer(_ context.Context, c Container) (Container, error) {
	if c.ID == "" {
		return c, fmt.Errorf("record of a container without id: %w", errdefs.ErrInvalid)
	}
	key := []byte(c.ID)
	err := b.update(bucketContainers, c.ID, func(tx *bolt.Tx) (err error) {
		records := tx.Bucket(bucketContainers)
		if records.Get(key) != nil {
			return errdefs.ErrAlreadyExists
		}
		if c.IDBase, err = block(tx.Bucket(bucketBlocks), key); err != nil {
			return err
		}
		raw, err := encode(c)
		if err != nil {
			return err
		}
		return records.Put(key, raw)
	})
	return c, err
}

// block returns the block of the container, a new one if it has none.
func block(blocks *bolt.Bucket, container []byte) (uint32, error) {
	if raw := blocks.Get(container); len(raw) == 4 {
		return binary.BigEndian.Uint32(raw), nil
	}
	taken := map[string]uint32{}
	err := blocks.ForEach(func(k, raw []byte) error {
		if len(raw) == 4 {
			taken[string(k)] = binary.BigEndian.Uint32(raw)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	base, err := freeBlock(maps.Values(taken))
	if err != nil {
		return 0, err
	}
	return base, blocks.Put(container, binary.BigEndian.AppendUint32(nil, base))
}

// PutContainer implements Store.
func (b *Bolt) PutContainer(_ context.Context, c Container) error {
	return b.put(bucketContainers, c.ID, c)
}

// DeleteContainer implements Store.
func (b *Bolt) DeleteContainer(_ context.Context, id string) error {
	return b.remove(id, bucketContainers, bucketBlocks)
}

// remove deletes a key of some buckets; an absent one costs no write.
func (b *Bolt) remove(key string, buckets ...[]byte) error {
	present := false
	err := b.db.View(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			present = present || tx.Bucket(name).Get([]byte(key)) != nil
		}
		return nil
	})
	if err == nil && !present {
		return nil
	}
	return b.update(buckets[0], key, func(tx *bolt.Tx) error {
		var errs []error
		for _, name := range buckets {
			errs = append(errs, tx.Bucket(name).Delete([]byte(key)))
		}
		return errors.Join(errs...)
	})
}

// Image implements Store.
func (b *Bolt) Image(_ context.Context, ref string) (img Image, err error) {
	err = b.get(bucketImages, ref, &img)
	return img, err
}

// Images implements Store.
func (b *Bolt) Images(context.Context) ([]Image, error) {
	return list[Image](b, bucketImages, func(string) {})
}

// PutImage implements Store.
func (b *Bolt) PutImage(_ context.Context, img Image) error {
	return b.put(bucketImages, img.Ref, img)
}

// DeleteImage implements Store.
func (b *Bolt) DeleteImage(_ context.Context, ref string) error {
	return b.update(bucketImages, ref, func(tx *bolt.Tx) error {
		err := tx.Bucket(bucketContainers).ForEach(func(k, raw []byte) error {
			var c Container
			if err := decode(raw, &c); err != nil || c.Image == ref {
				return fmt.Errorf("container %s uses it: %w", k, errdefs.ErrConflict)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketImages).Delete([]byte(ref))
	})
}

// Damaged implements Store.
func (b *Bolt) Damaged(context.Context) ([]string, error) {
	var bad []string
	note := func(key string) { bad = append(bad, key) }
	if _, err := list[Container](b, bucketContainers, note); err != nil {
		return nil, err
	}
	if _, err := list[Image](b, bucketImages, note); err != nil {
		return nil, err
	}
	if _, err := list[Intent](b, bucketJournal, note); err != nil {
		return nil, err
	}
	return bad, nil
}
