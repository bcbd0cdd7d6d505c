package mirror

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Kind of a Place.
type Kind string

// The kinds of places.
const (
	// Registry is an image in an OCI registry, HOST[:PORT]/NAME[:TAG|@DIGEST].
	Registry Kind = "registry"
	// File is an archive: an OCI layout or what docker save writes, as a tar.
	File Kind = "file"
	// Dir is a directory with an OCI layout.
	Dir Kind = "dir"
	// Glance is an image of the image service, by id or by name.
	Glance Kind = "glance"
	// Engine is an image of this host's engine.
	Engine Kind = "engine"
)

// Place is where an image is, or shall be.
type Place struct {
	Kind Kind
	// Name is a registry's reference, a path, or a name.
	Name string
}

// String is the form that ParsePlace reads.
func (p Place) String() string {
	if p.Kind == Registry {
		return p.Name
	}
	return string(p.Kind) + ":" + p.Name
}

// ParsePlace reads file:PATH, dir:PATH, glance:NAME, engine:NAME, or the
// reference of a registry, whose host has to be there. Anything else is
// errdefs.ErrInvalid.
func ParsePlace(text string) (Place, error) {
	kind, rest, ok := strings.Cut(text, ":")
	if ok {
		switch k := Kind(kind); k {
		case File, Dir:
			if rest != "" {
				return Place{k, filepath.Clean(rest)}, nil
			}
		case Glance, Engine:
			if rest != "" {
				return Place{k, rest}, nil
			}
		case Registry:
		}
	}
	if _, err := reference(text, nil); err != nil {
		return Place{}, err
	}
	return Place{Registry, text}, nil
}

// reference reads that of a registry. Hosts of insecure may be reached without
// TLS.
func reference(text string, insecure []string) (name.Reference, error) {
	host, _, ok := strings.Cut(text, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return nil, errdefs.WithPublic(fmt.Errorf("reference %.200q: %w", text, errdefs.ErrInvalid),
			fmt.Sprintf("%.200q does not begin with a registry's host, and is not file:, dir:, glance: or engine: either", text))
	}
	var opts []name.Option
	for _, h := range insecure {
		if h == host {
			opts = append(opts, name.Insecure)
		}
	}
	ref, err := name.ParseReference(text, opts...)
	if err != nil {
		return nil, fmt.Errorf("reference %.200q: %w: %w", text, errdefs.ErrInvalid, err)
	}
	return ref, nil
}
