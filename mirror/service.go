package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Properties of images that were mirrored to the image service.
const (
	PropertySource   = "gantry_mirror_source"
	PropertyDigest   = "gantry_mirror_digest"
	PropertyPlatform = "gantry_mirror_platform"
)

// ServiceImage is an image of the image service.
type ServiceImage struct {
	ID, Name        string
	ContainerFormat string
	Properties      map[string]string
}

// ImageService is the image service, as one user sees it.
type ImageService interface {
	// Find returns the active images that are shown and have the properties.
	Find(ctx context.Context, properties map[string]string) ([]ServiceImage, error)
	// Named returns the active image with the id or, if there is none, with the
	// name. errdefs.ErrNotFound: none; errdefs.ErrConflict: several.
	Named(ctx context.Context, name string) (ServiceImage, error)
	// Open streams an image's data and verifies it.
	Open(ctx context.Context, id string) (io.ReadCloser, error)
	// Add makes an image of the formats docker and raw with this data. On error
	// there is none.
	Add(ctx context.Context, name string, properties map[string]string, data io.Reader) (id string, err error)
	// Hide takes an image out of lists; it can still be used by its id.
	Hide(ctx context.Context, id string) error
}

// toImages brings an image into the image service, in place of an earlier one
// from the same source: that is hidden, since instances may have been made of it.
func (m *Mirror) toImages(ctx context.Context, img v1.Image, from Place, name, digest string) (id string, current bool, err error) {
	if m.opts.Images == nil {
		return "", false, fmt.Errorf("no image service: %w", errdefs.ErrUnsupported)
	}
	of := map[string]string{PropertySource: from.String(), PropertyPlatform: m.platform.String()}
	before, err := m.opts.Images.Find(ctx, of)
	if err != nil {
		return "", false, err
	}
	var older []string
	for _, b := range before {
		switch {
		case b.Name != name:
		case b.Properties[PropertyDigest] == digest:
			id = b.ID
		default:
			older = append(older, b.ID)
		}
	}
	if current = id != ""; !current {
		of[PropertyDigest] = digest
		data := m.stream(ctx, img)
		id, err = m.opts.Images.Add(ctx, name, of, data)
		if err = errors.Join(err, data.Close()); err != nil {
			return "", false, err
		}
	}
	for _, o := range older {
		if err := m.opts.Images.Hide(ctx, o); err != nil {
			return id, current, fmt.Errorf("hide image %s, which is out of date: %w", o, err)
		}
	}
	return id, current, nil
}

// fromImages reads an image of the image service.
func (m *Mirror) fromImages(ctx context.Context, name string) (*source, error) {
	if m.opts.Images == nil {
		return nil, fmt.Errorf("no image service: %w", errdefs.ErrUnsupported)
	}
	img, err := m.opts.Images.Named(ctx, name)
	if err != nil {
		return nil, err
	}
	r, err := m.opts.Images.Open(ctx, img.ID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	if img.ContainerFormat == "bare" {
		return m.bare(ctx, r)
	}
	return m.fromArchive(ctx, r, "")
}

// bare makes an image of the tarball of a root file system: one layer, and no
// command.
func (m *Mirror) bare(ctx context.Context, r io.Reader) (*source, error) {
	f, drop, err := m.spool(ctx, r)
	if err != nil {
		return nil, err
	}
	src := &source{closes: []func(){drop}}
	layer, err := tarball.LayerFromFile(f)
	if err == nil {
		src.Image, err = mutate.AppendLayers(empty.Image, layer)
	}
	if err == nil {
		src.Image, err = mutate.ConfigFile(src.Image, &v1.ConfigFile{
			OS: m.platform.OS, Architecture: m.platform.Architecture, RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(layer)},
		})
	}
	if err != nil {
		src.close()
		return nil, fmt.Errorf("%w: no tarball: %w", errdefs.ErrUnsupported, err)
	}
	return src, nil
}

func diffIDs(l v1.Layer) []v1.Hash {
	id, err := l.DiffID()
	if err != nil {
		return nil // the layer's reader says so too
	}
	return []v1.Hash{id}
}

// toLocal brings an image into the engine.
func (m *Mirror) toLocal(ctx context.Context, img v1.Image, from, name string) (current bool, err error) {
	if m.opts.Local == nil {
		return false, fmt.Errorf("no engine: %w", errdefs.ErrUnsupported)
	}
	id, err := img.ConfigName()
	if err != nil {
		return false, classify(err)
	}
	there, err := m.opts.Local.ID(ctx, name)
	if err == nil && there == id.String() {
		return true, nil
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return false, err
	}
	data := m.stream(ctx, img)
	return false, errors.Join(m.opts.Local.Import(ctx, name, from, data), data.Close())
}

// fromLocal reads an image of the engine, for the place to.
func (m *Mirror) fromLocal(ctx context.Context, name string, to Place) (*source, error) {
	if m.opts.Local == nil {
		return nil, fmt.Errorf("no engine: %w", errdefs.ErrUnsupported)
	}
	without, err := m.there(ctx, name, to)
	if err != nil {
		return nil, err
	}
	r, err := m.opts.Local.Export(ctx, name, without)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return m.fromArchive(ctx, r, "")
}
