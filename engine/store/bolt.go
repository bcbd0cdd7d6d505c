package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// lockWait is how long an opener waits for another process to let go.
const lockWait = 3 * time.Second

// Bolt is a Store in one bbolt file.
type Bolt struct {
	db      *bolt.DB
	changes committer
	// decode reads a stored record; it differs between schemas.
	decode func(stored []byte, v any) error
}

var _ Store = (*Bolt)(nil)

// Open opens or makes the store at name; a store of an earlier schema is
// brought up to date. errdefs.ErrConflict says that another process has it,
// errdefs.ErrUnsupported that it has an unknown schema, errdefs.ErrCorrupt that
// it is not a store or a torn one, errdefs.ErrExhausted and ErrUnavailable that
// the disk is full or cannot be written; then nothing has been changed.
func Open(name string) (*Bolt, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("open store %s: %w", name, diskError(err))
	}
	b, err := open(name, false)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", name, err)
	}
	if err := b.transact(prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", name, err), b.db.Close())
	}
	return b, nil
}

// OpenReadOnly opens the store at name to be read, of whatever known schema,
// while no service has it; several readers may, and no service can begin until
// they have closed it. errdefs.ErrConflict says that a service runs: ask that
// one over its socket. errdefs.ErrNotFound says that there is no store; other
// errors as Open.
func OpenReadOnly(name string) (Reader, error) {
	b, err := open(name, true)
	if err == nil {
		var version uint64
		err = b.look(func(tx *bolt.Tx) (err error) { version, err = schemaOf(tx); return err })
		switch {
		case err != nil:
			err = errors.Join(err, b.db.Close())
		case version == 1:
			b.decode = decodeBare
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s to read: %w", name, err)
	}
	return b, nil
}

// open opens the file and reads all of it once, so that a torn one is known
// before anything relies on it.
func open(name string, readOnly bool) (*Bolt, error) {
	if err := checkMeta(name); err != nil {
		return nil, err
	}
	b := &Bolt{decode: decode}
	var file *os.File
	err := guard(func() (err error) {
		b.db, err = bolt.Open(name, 0o600, &bolt.Options{
			Timeout: lockWait, FreelistType: bolt.FreelistMapType, ReadOnly: readOnly,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, mode)
				file = f
				return f, err
			},
		})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("another gantry uses this state directory: %w", errdefs.ErrConflict)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w: %w", errdefs.ErrCorrupt, err)
	case errors.Is(err, errdefs.ErrCorrupt):
		return nil, errors.Join(err, closed(file)) // with the lock
	case errors.Is(err, fs.ErrNotExist):
		return nil, errdefs.ErrNotFound
	case err != nil:
		return nil, diskError(err)
	}
	if err := b.look(readAll); err != nil {
		return nil, errors.Join(err, b.db.Close())
	}
	return b, nil
}

// closed closes a file that may be closed already.
func closed(f *os.File) error {
	if f == nil {
		return nil
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Close implements Reader.
func (b *Bolt) Close() error { return b.db.Close() }

// look runs a transaction that reads.
func (b *Bolt) look(fn func(*bolt.Tx) error) error {
	return guard(func() error { return b.db.View(fn) })
}

// transact runs a transaction that writes, which others may share (committer); a
// full disk gets its class.
func (b *Bolt) transact(fn func(*bolt.Tx) error) error {
	return b.changes.do(fn, func(fn func(*bolt.Tx) error) error {
		return diskError(guard(func() error { return b.db.Update(fn) }))
	})
}

// guard turns what bbolt does with a page that is torn or beyond the end of
// the file, a panic or a fault of its memory map, into errdefs.ErrCorrupt.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the database is torn: %v: %w", r, errdefs.ErrCorrupt)
		}
	}()
	return fn()
}

func (b *Bolt) get(bucket []byte, key string, v any) error {
	err := b.look(func(tx *bolt.Tx) error {
		raw := tx.Bucket(bucket).Get([]byte(key))
		if raw == nil {
			return errdefs.ErrNotFound
		}
		return b.decode(raw, v)
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

// update is transact for one record.
func (b *Bolt) update(bucket []byte, key string, fn func(*bolt.Tx) error) error {
	if err := b.transact(fn); err != nil {
		return fmt.Errorf("record %s of %s: %w", key, bucket, err)
	}
	return nil
}

// remove deletes a key; an absent one costs no write.
func (b *Bolt) remove(bucket []byte, key string) error {
	if there, err := b.has(bucket, key); err != nil || !there {
		return err
	}
	return b.update(bucket, key, func(tx *bolt.Tx) error { return tx.Bucket(bucket).Delete([]byte(key)) })
}

func (b *Bolt) has(bucket []byte, key string) (there bool, err error) {
	err = b.look(func(tx *bolt.Tx) error {
		there = tx.Bucket(bucket).Get([]byte(key)) != nil
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("record %s of %s: %w", key, bucket, err)
	}
	return there, nil
}

// list reads all records of a bucket into T and calls bad with the key of one
// that cannot be read. A bucket that an old schema does not have is empty.
func list[T any](b *Bolt, bucket []byte, bad func(key string)) ([]T, error) {
	var out []T
	err := b.look(func(tx *bolt.Tx) error {
		records := tx.Bucket(bucket)
		if records == nil {
			return nil
		}
		return records.ForEach(func(k, raw []byte) error {
			var v T
			if err := b.decode(raw, &v); err != nil {
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

// decodeBare reads a record of schema 1, which has no envelope.
func decodeBare(stored []byte, v any) error {
	if err := json.Unmarshal(stored, v); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrCorrupt, err)
	}
	return nil
}
