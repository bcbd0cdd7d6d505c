package images

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (s *Service) dataRoutes() {
	s.api.Handle("PUT /v2/images/{id}/file", s.putFile)
	s.api.Handle("GET /v2/images/{id}/file", s.getFile)
	s.api.Handle("PUT /v2/images/{id}/stage", s.putStage)
	s.api.Handle("POST /v2/images/{id}/import", s.postImport)
}

// readStream returns the body of an upload. Where the client says how much
// comes, less is io.ErrUnexpectedEOF: net/http sees to that.
func readStream(r *rest.Request) (io.Reader, error) {
	if kind := r.Header.Get("Content-Type"); kind != "application/octet-stream" {
		return nil, wrongType(r)
	}
	return r.Body, nil
}

// needFormats refuses data for an image that does not say what it is.
func needFormats(i *Image) error {
	var missing []string
	if i.DiskFormat == nil {
		missing = append(missing, "disk_format")
	}
	if i.ContainerFormat == nil {
		missing = append(missing, "container_format")
	}
	switch len(missing) {
	case 0:
		return nil
	case 1:
		return invalid("Property %s must be set prior to saving data.", missing[0])
	}
	return invalid("Properties %s must be set prior to saving data.", strings.Join(missing, ", "))
}

// target reads the image that data comes for.
func (s *Service) target(ctx context.Context, who *rest.Caller, id, action, to string) (i *Image, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		i, err = getOwn(ctx, tx, who, id, action)
		return err
	})
	if err == nil && i.Status != "queued" {
		err = transition(i.Status, to)
	}
	return i, err
}

func (s *Service) putFile(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	data, err := readStream(r)
	if err != nil {
		return nil, err
	}
	if err := s.Upload(ctx, r.Caller, r.PathValue("id"), data); err != nil {
		return nil, err
	}
	return done()
}

func gone(id string, cause error) error {
	e := rest.Errorf(http.StatusGone, "Image %s could not be found after upload. The image may have been deleted during the upload, cleaning up the chunks uploaded.", id)
	e.Type = asText
	return e.Because(cause)
}

func full(status int, text string, cause error) error {
	return rest.Errorf(status, "%s", text).Because(cause)
}

func (s *Service) getFile(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.Image(ctx, r.Caller, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if i.Status == "deactivated" && !r.Caller.Admin() {
		return nil, forbidden("The requested image has been deactivated. Image data download is forbidden.")
	}
	if i.Status != "active" && i.Status != "deactivated" {
		return rest.NoContent()
	}
	f, err := os.Open(s.path("data", i.ID))
	if errors.Is(err, os.ErrNotExist) { // deleted since
		return nil, notFound(i.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", i.ID, err)
	}
	if err := checkRange(r.Header.Get("Range"), i.Size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	if i.Checksum != nil {
		h["Content-Md5"] = []string{*i.Checksum}
	}
	return &rest.Response{Header: h, Stream: func(w http.ResponseWriter) error {
		defer func() { _ = f.Close() }() // was only read
		// ranges are its business, and sendfile
		http.ServeContent(w, r.Request, "", time.Time{}, f)
		return nil
	}}, nil
}

func (s *Service) putStage(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	data, err := readStream(r)
	if err != nil {
		return nil, err
	}
	i, err := s.target(ctx, r.Caller, r.PathValue("id"), "modify_image", "uploading")
	if err != nil {
		return nil, err
	}
	leave, ok := s.enter(i.ID)
	if !ok {
		return nil, transition("uploading", "uploading")
	}
	defer leave()
	if err := s.claim(ctx, i, "uploading"); err != nil {
		return nil, err
	}
	f, err := s.store("staging", i.ID, i, data)
	if err == nil {
		err = s.db.Write(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, `UPDATE images SET size = ?, updated_at = ? WHERE id = ?`, f.size, s.now(), i.ID); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO staged (image_id, size, virtual_size, checksum, os_hash_value) VALUES (?, ?, ?, ?, ?)`,
				i.ID, f.size, f.virtual, f.checksum, f.hash)
			if err != nil {
				err = fmt.Errorf("image %s is gone: %w: %w", i.ID, err, errdefs.ErrAborted)
			}
			return err
		})
	}
	if err != nil {
		return nil, s.release(ctx, i.ID, "uploading", err)
	}
	return done()
}

// postImport makes staged data the image's. All about it is known since it was
// staged, so that this is done before the answer.
func (s *Service) postImport(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	if err := checkImport(body); err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	var i *Image
	var f facts
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		if i, err = get(ctx, tx, r.Caller, id); err != nil {
			return err
		}
		if err := importable(i); err != nil {
			return err
		}
		if err := mayChange(r.Caller, i, "modify_image"); err != nil {
			return err
		}
		err := tx.QueryRowContext(ctx, `SELECT size, virtual_size, checksum, os_hash_value FROM staged WHERE image_id = ?`, id).Scan(&f.size, &f.virtual, &f.checksum, &f.hash)
		if errors.Is(err, sql.ErrNoRows) { // is being staged
			return conflict("New operation on image '%s' is not permitted as prior operation is still in progress", id)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := os.Rename(s.path("staging", id), s.path("data", id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("import image %s: %w", id, err)
	}
	if err := atomicfile.SyncDir(s.path("data", "")); err != nil {
		return nil, fmt.Errorf("import image %s: %w", id, err)
	}
	if err := s.activate(ctx, id, "uploading", f); err != nil {
		return nil, word(id, err)
	}
	return rest.Accepted(nil)
}

func checkImport(body map[string]any) error {
	v, ok := body["method"]
	if !ok {
		return invalid("Import request requires a 'method' field.")
	}
	method, ok := v.(map[string]any)
	if !ok {
		return invalid("Import request requires a 'name' field.")
	}
	name, ok := method["name"]
	if !ok {
		return invalid("Import request requires a 'name' field.")
	}
	if name != "glance-direct" {
		return invalid("Unknown import method name '%s'.", strings.Trim(rest.Repr(name), "'"))
	}
	for _, flag := range []string{"all_stores_must_succeed", "all_stores"} {
		if v, ok := body[flag]; ok {
			if _, ok := v.(bool); !ok {
				return invalid("'%s' must be boolean value only", flag)
			}
		}
	}
	return nil
}

func importable(i *Image) error {
	switch {
	case i.Status == "active":
		return conflict("Image with status active cannot be target for import")
	case i.Status != "uploading":
		return conflict("Image needs to be staged before 'glance-direct' method can be used")
	case i.ContainerFormat == nil:
		return conflict("'container_format' needs to be set before import")
	case i.DiskFormat == nil:
		return conflict("'disk_format' needs to be set before import")
	}
	return nil
}
