package glance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// StatusActive is the status of an image that can be read.
const StatusActive = "active"

// Image is what the image service says of an image.
type Image struct {
	ID, Name, Status, Owner, Visibility string
	DiskFormat, ContainerFormat         string
	// SizeBytes is the length of the data, -1 when it is not known (yet).
	SizeBytes int64
	// Checksum is MD5 in hex; HashAlgo and HashValue are the multihash.
	Checksum, HashAlgo, HashValue string
	MinDiskGB, MinRAMMB           int64
	// Created is when the record was made, of which the service tells whole
	// seconds; zero when it does not.
	Created time.Time
	// Properties are all further fields, as Nova keeps them. Values that are
	// not text are JSON.
	Properties map[string]string
}

// Active reports whether the image has all its data.
func (i Image) Active() bool { return i.Status == StatusActive }

// base are the fields of an image that are not properties
// (glance/api/v2/images.py get_base_properties, and what Nova's dictionary adds).
var base = [...]string{
	"id", "name", "status", "visibility", "protected", "os_hidden", "checksum", "os_hash_algo", "os_hash_value", "owner",
	"size", "virtual_size", "container_format", "disk_format", "created_at", "updated_at", "tags", "direct_url",
	"min_ram", "min_disk", "self", "file", "stores", "schema", "locations", "deleted", "deleted_at", "is_public",
}

// maxImage bounds the JSON of one image (bytes).
const maxImage = 4 << 20

// Parse reads an image as the Image API v2 shows it, with its properties at the
// top level, or as Nova's image dictionary, with them under "properties".
// Malformed input is errdefs.ErrInvalid.
func Parse(raw []byte) (Image, error) {
	bad := func(err error) (Image, error) {
		return Image{}, fmt.Errorf("parse image: %w: %w", errdefs.ErrInvalid, err)
	}
	if len(raw) > maxImage {
		return bad(fmt.Errorf("%d bytes", len(raw)))
	}
	var known struct {
		ID, Name, Status, Owner, Visibility *string
		DiskFormat                          *string `json:"disk_format"`
		ContainerFormat                     *string `json:"container_format"`
		Size                                *int64
		Checksum                            *string
		HashAlgo                            *string                    `json:"os_hash_algo"`
		HashValue                           *string                    `json:"os_hash_value"`
		MinDisk                             *int64                     `json:"min_disk"`
		MinRAM                              *int64                     `json:"min_ram"`
		Created                             json.RawMessage            `json:"created_at"`
		Properties                          map[string]json.RawMessage `json:"properties"`
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &known); err != nil {
		return bad(err)
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return bad(err)
	}
	img := Image{
		ID: text(known.ID), Name: text(known.Name), Status: text(known.Status), Owner: text(known.Owner), Visibility: text(known.Visibility),
		DiskFormat: text(known.DiskFormat), ContainerFormat: text(known.ContainerFormat), SizeBytes: -1,
		Checksum: strings.ToLower(text(known.Checksum)), HashAlgo: strings.ToLower(text(known.HashAlgo)), HashValue: strings.ToLower(text(known.HashValue)),
		Properties: map[string]string{},
	}
	img.Created = created(known.Created)
	if known.Size != nil && *known.Size >= 0 {
		img.SizeBytes = *known.Size
	}
	if known.MinDisk != nil {
		img.MinDiskGB = *known.MinDisk
	}
	if known.MinRAM != nil {
		img.MinRAMMB = *known.MinRAM
	}
	properties := known.Properties
	if properties == nil {
		for _, k := range base {
			delete(all, k)
		}
		properties = all
	}
	for k, v := range properties {
		if s, ok := property(v); ok {
			img.Properties[k] = s
		}
	}
	return img, nil
}

// created reads a time as Glance writes it, or as Nova's dictionary does, which
// names no zone and means UTC.
func created(raw json.RawMessage) time.Time {
	s, _ := property(raw)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at
		}
	}
	return time.Time{}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// property returns the text of a value; null is no value.
func property(raw json.RawMessage) (string, bool) {
	var s string
	if bytes.Equal(raw, []byte("null")) {
		return "", false
	}
	if json.Unmarshal(raw, &s) == nil {
		return s, true
	}
	return string(raw), true
}

// imagePath is the address of an image. An id that is a path of its own is refused.
func imagePath(id string) (string, error) {
	if id == "" || id == "." || id == ".." {
		return "", fmt.Errorf("image id %q: %w", id, errdefs.ErrInvalid)
	}
	return "/v2/images/" + url.PathEscape(id), nil
}

// Stat returns what the service says of an image. An image that is not there,
// or that the user may not see, is errdefs.ErrNotFound.
func (c *Client) Stat(ctx context.Context, auth openstack.UserAuth, id string) (Image, error) {
	path, err := imagePath(id)
	if err != nil {
		return Image{}, err
	}
	var raw json.RawMessage
	if err := c.rest.Do(ctx, auth, openstack.Request{Method: http.MethodGet, Path: path, Into: &raw}); err != nil {
		return Image{}, fmt.Errorf("read image %s: %w", id, err)
	}
	img, err := Parse(raw)
	if err != nil {
		return Image{}, fmt.Errorf("read image %s: %w", id, err)
	}
	return img, nil
}

// Delete removes an image with its data. A missing one is success; a protected
// one is errdefs.ErrForbidden.
func (c *Client) Delete(ctx context.Context, auth openstack.UserAuth, id string) error {
	path, err := imagePath(id)
	if err != nil {
		return err
	}
	err = c.rest.Do(ctx, auth, openstack.Request{Method: http.MethodDelete, Path: path})
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("delete image %s: %w", id, err)
	}
	return nil
}
