package glance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// patchType is the media type of Glance's JSON patch, in which add replaces.
const patchType = "application/openstack-images-v2.1-json-patch"

// Patch changes an image. Empty fields stay as they are, and so do properties
// that it does not name.
type Patch struct {
	Name            string
	DiskFormat      string
	ContainerFormat string
	Properties      map[string]string
	// Hide takes the image out of lists.
	Hide bool
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// operations is the patch as Glance wants it. It is pure; the order is fixed.
func (p Patch) operations() []operation {
	var ops []operation
	for _, f := range []struct{ name, value string }{
		{"name", p.Name}, {"disk_format", p.DiskFormat}, {"container_format", p.ContainerFormat},
	} {
		if f.value != "" {
			ops = append(ops, operation{"replace", "/" + f.name, f.value})
		}
	}
	if p.Hide {
		ops = append(ops, operation{"replace", "/os_hidden", true})
	}
	pointer := strings.NewReplacer("~", "~0", "/", "~1")
	for _, k := range slices.Sorted(maps.Keys(p.Properties)) {
		ops = append(ops, operation{"add", "/" + pointer.Replace(k), p.Properties[k]})
	}
	return ops
}

// Update changes an image. An empty patch does nothing. Formats can be changed
// only while the image has no data; afterwards Glance answers
// errdefs.ErrForbidden.
func (c *Client) Update(ctx context.Context, auth openstack.UserAuth, id string, p Patch) error {
	path, err := imagePath(id)
	if err != nil {
		return err
	}
	ops := p.operations()
	if len(ops) == 0 {
		return nil
	}
	err = c.rest.Do(ctx, auth, openstack.Request{
		Method: http.MethodPatch, Path: path, Body: ops, Header: map[string]string{"Content-Type": patchType},
	})
	if err != nil {
		return fmt.Errorf("update image %s: %w", id, err)
	}
	return nil
}

// NewImage describes an image to create.
type NewImage struct {
	Name                        string
	DiskFormat, ContainerFormat string
	Visibility                  string
	Properties                  map[string]string
}

// Create makes an image without data, in status queued.
func (c *Client) Create(ctx context.Context, auth openstack.UserAuth, n NewImage) (Image, error) {
	body := map[string]string{}
	maps.Copy(body, n.Properties)
	for k, v := range map[string]string{
		"name": n.Name, "disk_format": n.DiskFormat, "container_format": n.ContainerFormat, "visibility": n.Visibility,
	} {
		if v != "" {
			body[k] = v
		}
	}
	var raw json.RawMessage
	if err := c.rest.Do(ctx, auth, openstack.Request{Method: http.MethodPost, Path: "/v2/images", Body: body, Into: &raw}); err != nil {
		return Image{}, fmt.Errorf("create image %q: %w", n.Name, err)
	}
	return Parse(raw)
}

func isNotFound(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }
