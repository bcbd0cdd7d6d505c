package images

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Image reads an image that the caller may see. Any other is a *rest.Error with
// status 404.
func (s *Service) Image(ctx context.Context, who *rest.Caller, id string) (i *Image, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		i, err = get(ctx, tx, who, strings.ToLower(id))
		return err
	})
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Images reads all images that the caller may see and that have these
// properties, the youngest first.
func (s *Service) Images(ctx context.Context, who *rest.Caller, properties map[string]string) (all []*Image, err error) {
	q := make(map[string][]string, len(properties))
	sel, err := selectImages(who, q)
	if err != nil {
		return nil, err
	}
	for name, value := range properties {
		sel.and("id IN (SELECT image_id FROM properties WHERE name = ? AND value = ?)", name, value)
	}
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		if all, err = query(ctx, tx, strings.Join(sel.where, " AND "), sel.order, sel.args...); err != nil {
			return err
		}
		return complete(ctx, tx, all)
	})
	return all, err
}

// NewImage is what a new image is made of. What is empty is not set.
type NewImage struct {
	Name                        string
	DiskFormat, ContainerFormat string
	Visibility                  string // private if empty, as of a snapshot
	MinDisk, MinRAM             int64
	Tags                        []string
	Properties                  map[string]string
}

// Create makes an image of the caller's project, queued: for createImage and
// createBackup of the compute API, whose compute service uploads the data.
// Wrong values are a *rest.Error in Glance's words, with nothing made.
func (s *Service) Create(ctx context.Context, who *rest.Caller, n NewImage) (*Image, error) {
	body := map[string]any{"visibility": "private", "min_disk": jsonNumber(n.MinDisk), "min_ram": jsonNumber(n.MinRAM)}
	for name, v := range n.Properties {
		body[name] = v
	}
	for name, v := range map[string]string{"name": n.Name, "disk_format": n.DiskFormat, "container_format": n.ContainerFormat, "visibility": n.Visibility} {
		if v != "" {
			body[name] = v
		}
	}
	tags := make([]any, 0, len(n.Tags))
	for _, t := range n.Tags {
		tags = append(tags, t)
	}
	body["tags"] = tags
	return s.create(ctx, who, body)
}

// Upload gives a queued image its data, which makes it active. On an error the
// image is queued as before and nothing of the data is left; a full disk is a
// *rest.Error with status 413.
func (s *Service) Upload(ctx context.Context, who *rest.Caller, id string, data io.Reader) error {
	i, err := s.target(ctx, who, strings.ToLower(id), "upload_image", "saving")
	if e, ok := errors.AsType[*rest.Error](err); ok && e.Status == http.StatusForbidden && who.Member() {
		return forbidden("Not allowed to upload image data for image %s", id)
	}
	if err != nil {
		return err
	}
	if err := needFormats(i); err != nil {
		return err
	}
	return s.upload(ctx, i, data)
}

// Delete removes an image and its data. One that is absent is a *rest.Error with
// status 404, a protected one 403.
func (s *Service) Delete(ctx context.Context, who *rest.Caller, id string) error {
	return s.remove(ctx, who, strings.ToLower(id))
}
