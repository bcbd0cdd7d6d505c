package glance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// Filter narrows List; empty fields do not.
type Filter struct {
	Name, Status string
	Properties   map[string]string
}

// maxPages bounds how many pages of a list are read.
const maxPages = 1000

// List returns the images that the user may see, without hidden ones, newest
// first.
func (c *Client) List(ctx context.Context, auth openstack.UserAuth, f Filter) ([]Image, error) {
	query := url.Values{"limit": {"100"}, "sort": {"created_at:desc"}}
	for k, v := range f.Properties {
		query.Set(k, v)
	}
	if f.Name != "" {
		query.Set("name", f.Name)
	}
	if f.Status != "" {
		query.Set("status", f.Status)
	}
	var out []Image
	for range maxPages {
		var page struct {
			Images []json.RawMessage `json:"images"`
			Next   string            `json:"next"`
		}
		if err := c.rest.Do(ctx, auth, openstack.Request{Method: http.MethodGet, Path: "/v2/images", Query: query, Into: &page}); err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		for _, raw := range page.Images {
			img, err := Parse(raw)
			if err != nil {
				return nil, fmt.Errorf("list images: %w", err)
			}
			out = append(out, img)
		}
		if page.Next == "" {
			return out, nil
		}
		next, err := url.Parse(page.Next)
		if err != nil {
			return nil, fmt.Errorf("list images: next page %.200q: %w", page.Next, errdefs.ErrInvalid)
		}
		query = next.Query()
	}
	return nil, fmt.Errorf("list images: more than %d pages: %w", maxPages, errdefs.ErrInvalid)
}
