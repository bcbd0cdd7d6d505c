package images

import (
	"context"
	"crypto/md5" //nolint:gosec // Glance's checksum; the hash that counts is the other
	"crypto/sha512"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// path is the file of an image below one of the directories data, staging and
// partial.
func (s *Service) path(dir, id string) string { return filepath.Join(s.o.Dir, dir, id) }

// facts are what is found out about data while it is stored.
type facts struct {
	size           int64
	virtual        *int64
	checksum, hash string
}

// store writes data to a file below dir, which is whole and synced when it has
// its name. On an error nothing is left.
func (s *Service) store(dir, id string, i *Image, data io.Reader) (f facts, err error) {
	file, err := os.CreateTemp(filepath.Join(s.o.Dir, "partial"), id+".")
	if err != nil {
		return f, fmt.Errorf("store image %s: %w", id, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	sum, hash, head := md5.New(), sha512.New(), &prefix{} //nolint:gosec // see above
	f.size, err = io.Copy(io.MultiWriter(file, sum, hash, head), io.LimitReader(data, maxSize+1))
	if err == nil && f.size > maxSize {
		err = fmt.Errorf("store image %s: %w", id, errTooLarge)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return f, fmt.Errorf("store image %s: %w", id, err)
	}
	f.checksum, f.hash = hex.EncodeToString(sum.Sum(nil)), hex.EncodeToString(hash.Sum(nil))
	f.virtual = virtualSize(i, f.size, head.data)
	if err := os.Rename(file.Name(), s.path(dir, id)); err != nil {
		return f, fmt.Errorf("store image %s: %w", id, err)
	}
	return f, atomicfile.SyncDir(filepath.Join(s.o.Dir, dir))
}

var errTooLarge = errors.New("larger than the limit")

// upload stores the data of a queued image and makes it active. If that fails,
// the image is queued as before.
func (s *Service) upload(ctx context.Context, i *Image, data io.Reader) error {
	leave, ok := s.enter(i.ID)
	if !ok {
		return transition("saving", "saving")
	}
	defer leave()
	if err := s.claim(ctx, i, "saving"); err != nil {
		return err
	}
	f, err := s.store("data", i.ID, i, data)
	if err == nil {
		err = s.activate(ctx, i.ID, "saving", f)
	}
	if err != nil {
		return s.release(ctx, i.ID, "saving", err)
	}
	return nil
}

// claim moves an image from queued to a state that only this request ends.
func (s *Service) claim(ctx context.Context, i *Image, to string) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE images SET status = ?, updated_at = ? WHERE id = ? AND status = 'queued'`, to, s.now(), i.ID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			var status string
			if err := tx.QueryRowContext(ctx, `SELECT status FROM images WHERE id = ?`, i.ID).Scan(&status); err != nil {
				return notFound(i.ID)
			}
			return transition(status, to)
		}
		return nil
	})
}

// activate makes an image active with stored data. If the image was deleted
// meanwhile that is errdefs.ErrAborted.
func (s *Service) activate(ctx context.Context, id, from string, f facts) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE images SET status = 'active', size = ?, virtual_size = ?, checksum = ?, os_hash_algo = 'sha512', os_hash_value = ?, updated_at = ?
			WHERE id = ? AND status = ?`, f.size, f.virtual, f.checksum, f.hash, s.now(), id, from)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return fmt.Errorf("image %s is gone: %w", id, errdefs.ErrAborted)
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM staged WHERE image_id = ?`, id)
		return err
	})
}

// release undoes a claim after cause, and words it.
func (s *Service) release(ctx context.Context, id, from string, cause error) error {
	ctx = context.WithoutCancel(ctx) // the client may be gone
	dir := "data"
	if from == "uploading" {
		dir = "staging"
	}
	undo := s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM staged WHERE image_id = ?`, id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE images SET status = 'queued', size = NULL, virtual_size = NULL, updated_at = ? WHERE id = ? AND status = ?`, s.now(), id, from)
		return err
	})
	if err := os.Remove(s.path(dir, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		undo = errors.Join(undo, err)
	}
	return errors.Join(word(id, cause), undo)
}

// word says why data could not be stored.
func word(id string, cause error) error {
	var e error
	switch {
	case errors.Is(cause, errdefs.ErrAborted):
		e = gone(id, cause)
	case errors.Is(cause, syscall.ENOSPC), errors.Is(cause, syscall.EDQUOT), errors.Is(cause, errdefs.ErrExhausted):
		e = full(http.StatusRequestEntityTooLarge, "Image storage media is full: There is not enough disk space on the image storage media.", cause)
	case errors.Is(cause, errTooLarge):
		e = full(http.StatusRequestEntityTooLarge, "The incoming image is too large: The provided image is too large.", cause)
	case errors.Is(cause, io.ErrUnexpectedEOF), errors.Is(cause, context.Canceled):
		e = full(http.StatusBadRequest, "The data of the image ended early.", cause)
	default:
		e = cause
	}
	return e
}

// sweep removes data of no image, and queues images whose upload was cut off.
func (s *Service) sweep(ctx context.Context) error {
	keep := map[string]map[string]bool{"data": {}, "staging": {}, "partial": {}}
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE images SET status = 'queued', size = NULL, virtual_size = NULL
			WHERE status = 'saving' OR status = 'uploading' AND id NOT IN (SELECT image_id FROM staged)`); err != nil {
			return err
		}
		for dir, q := range map[string]string{
			"data":    `SELECT id, '', '' FROM images WHERE status IN ('active', 'deactivated') OR id IN (SELECT image_id FROM staged)`,
			"staging": `SELECT image_id, '', '' FROM staged`,
		} {
			if err := pairs(ctx, tx, q, nil, func(id, _, _ string) { keep[dir][id] = true }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for dir, ids := range keep {
		files, err := os.ReadDir(filepath.Join(s.o.Dir, dir))
		if err != nil {
			return err
		}
		for _, f := range files {
			if ids[f.Name()] {
				continue
			}
			if err := os.Remove(s.path(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
