package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Layer is one layer of an image.
type Layer struct {
	DiffID string `json:"diff_id,omitempty"`
	// Size is what it takes unpacked, -1 where nobody knows.
	Size      int64     `json:"size_bytes"`
	Created   time.Time `json:"created,omitzero"`
	CreatedBy string    `json:"created_by,omitempty"`
	// Stored is the layer as the registry has it that it came from.
	Stored image.Stored `json:"stored,omitzero"`
}

// Difference is a file of a container that is not as in its image.
type Difference struct {
	Kind engine.ChangeKind `json:"kind"`
	Path string            `json:"path"`
}

// Prune says which images that nothing uses to remove.
type Prune struct {
	// KeepFor is how long an image stays after its last use, in seconds.
	KeepFor float64 `json:"keep_for_seconds"`
	// DryRun removes nothing and reports what would go.
	DryRun bool `json:"dry_run,omitempty"`
}

// Pruned is what a Prune has removed.
type Pruned struct {
	Images []string `json:"images"`
	Layers []string `json:"layers"`
	Bytes  int64    `json:"bytes"`
}

// imageRef is the reference in the query.
func imageRef(r *http.Request) (string, error) {
	ref := r.URL.Query().Get("ref")
	return ref, checkRef(ref)
}

// commitImage makes a local image: it changes the container's engine, not the
// container, so an owner has no say.
func (s *Server) commitImage(r *http.Request) (any, error) {
	ref, err := imageRef(r)
	if err != nil {
		return nil, err
	}
	img, err := s.opts.Backend.CommitImage(r.Context(), id(r), ref)
	if err != nil {
		return nil, err
	}
	return imageOf(img), nil
}

func (s *Server) history(r *http.Request) (any, error) {
	ref, err := imageRef(r)
	if err != nil {
		return nil, err
	}
	list, err := s.opts.Backend.History(r.Context(), ref)
	if err != nil {
		return nil, err
	}
	out := make([]Layer, len(list))
	for i, l := range list {
		out[i] = Layer{DiffID: l.DiffID, Size: l.SizeBytes, Created: l.Created, CreatedBy: l.CreatedBy, Stored: l.Stored}
	}
	return out, nil
}

func (s *Server) exportImage(w http.ResponseWriter, r *http.Request) error {
	ref, err := imageRef(r)
	if err != nil {
		return err
	}
	var without []digest.Digest
	for _, d := range r.URL.Query()["without"] {
		without = append(without, digest.Digest(d))
	}
	out, err := s.opts.Backend.ExportImage(r.Context(), ref, without...)
	if err != nil {
		return err
	}
	defer out.Content.Close()
	return stream(w, "application/x-tar", out.Content)
}

func (s *Server) prune(r *http.Request) (any, error) {
	var req Prune
	if err := body(r, &req); err != nil {
		return nil, err
	}
	if req.KeepFor < 0 || req.KeepFor > 1e9 {
		return nil, fmt.Errorf("keep for %g seconds: %w", req.KeepFor, errdefs.ErrInvalid)
	}
	report, err := s.opts.Backend.Collect(r.Context(), engine.GCOptions{KeepFor: time.Duration(req.KeepFor * float64(time.Second)), DryRun: req.DryRun})
	if err != nil {
		return nil, err
	}
	return Pruned{Images: report.Images, Layers: report.Layers, Bytes: report.Bytes}, nil
}

// CommitImage makes an image of a container's disk that stays with the engine.
func (c *Client) CommitImage(ctx context.Context, id, ref string) (out Image, err error) {
	return out, c.call(ctx, http.MethodPost, path("containers", id, "commit"), url.Values{"ref": {ref}}, nil, &out)
}

// CommitDelta reads an OCI archive of what the container has written. It can be
// imported where its image is. Close it when done.
func (c *Client) CommitDelta(ctx context.Context, id string) (io.ReadCloser, error) {
	return c.read(ctx, path("containers", id, "commit"), url.Values{"delta": {"1"}})
}

// Export reads the container's whole file system as a tar stream. Close it when
// done.
func (c *Client) Export(ctx context.Context, id string) (io.ReadCloser, error) {
	return c.read(ctx, path("containers", id, "export"), nil)
}

// Changes lists how the container's disk differs from its image.
func (c *Client) Changes(ctx context.Context, id string) (out []Difference, err error) {
	return out, c.call(ctx, http.MethodGet, path("containers", id, "changes"), nil, nil, &out)
}

// ExportImage reads an OCI archive of an image, without the layers that are
// stored elsewhere by one of the digests. Close it when done.
func (c *Client) ExportImage(ctx context.Context, ref string, without ...string) (io.ReadCloser, error) {
	return c.read(ctx, "/images/archive", url.Values{"ref": {ref}, "without": without})
}

// History describes the layers of an image, lowest first.
func (c *Client) History(ctx context.Context, ref string) (out []Layer, err error) {
	return out, c.call(ctx, http.MethodGet, "/images/history", url.Values{"ref": {ref}}, nil, &out)
}

// Prune removes images that nothing uses.
func (c *Client) Prune(ctx context.Context, req Prune) (out Pruned, err error) {
	return out, c.call(ctx, http.MethodPost, "/images/prune", nil, req, &out)
}

// read opens a stream of bytes.
func (c *Client) read(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	r, err := request(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, err
	}
	return c.bytes(r)
}
