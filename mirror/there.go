package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The engine keeps no layer as a registry stores it, and compressing one again
// gives other bytes. So before layers are compressed a registry is asked for them
// as they came: what it has, or can take from another repository of its own, is
// named in the manifest as it is there.

// there returns the digests of those layers of the engine's image that the
// registry at the place to has. That it cannot be asked is no error here: who
// sends to it tells.
func (m *Mirror) there(ctx context.Context, image string, to Place) ([]string, error) {
	if to.Kind != Registry {
		return nil, nil
	}
	ref, err := reference(to.Name, m.opts.Insecure)
	if err != nil {
		return nil, err
	}
	layers, err := m.opts.Local.Stored(ctx, image)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range layers {
		there, err := m.has(ctx, ref.Context(), l)
		if err != nil {
			m.opts.Log.Debug().Err(err).Str("registry", ref.Context().RegistryStr()).Str("layer", l.Digest).Msg("layer is not there yet")
		}
		if there {
			out = append(out, l.Digest)
		}
	}
	return out, ctx.Err()
}

// has asks a repository for a layer, and to take it from the one that it came
// from, if that is of the same registry.
func (m *Mirror) has(ctx context.Context, repo name.Repository, l StoredLayer) (bool, error) {
	digest, err := v1.NewHash(l.Digest)
	if err != nil {
		return false, err
	}
	blob, err := remote.Layer(repo.Digest(l.Digest), m.remote(ctx)...)
	if err != nil {
		return false, err
	}
	if there, err := partial.Exists(blob); err != nil || there {
		return there, err
	}
	if l.From == "" {
		return false, nil
	}
	from, err := reference(l.From, m.opts.Insecure)
	if err != nil || from.Context().RegistryStr() != repo.RegistryStr() || from.Context().Name() == repo.Name() {
		return false, err
	}
	err = remote.WriteLayer(repo, &remote.MountableLayer{Layer: absent(digest), Reference: from}, m.remote(ctx)...)
	if errors.Is(err, errAbsent) {
		return false, nil
	}
	return err == nil, err
}

var errAbsent = errors.New("the layer is not here in this form")

// absent is a layer that can be mounted, and cannot be sent.
type absent v1.Hash

// Digest implements v1.Layer.
func (a absent) Digest() (v1.Hash, error) { return v1.Hash(a), nil }

// DiffID implements v1.Layer.
func (a absent) DiffID() (v1.Hash, error) { return v1.Hash{}, a.err() }

// Compressed implements v1.Layer.
func (a absent) Compressed() (io.ReadCloser, error) { return nil, a.err() }

// Uncompressed implements v1.Layer.
func (a absent) Uncompressed() (io.ReadCloser, error) { return nil, a.err() }

// Size implements v1.Layer; it is for progress only.
func (absent) Size() (int64, error) { return 0, nil }

// MediaType implements v1.Layer; it is for logs only.
func (absent) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

func (a absent) err() error { return fmt.Errorf("%s: %w", v1.Hash(a), errAbsent) }
