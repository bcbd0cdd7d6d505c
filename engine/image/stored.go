package image

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Stored is a layer as it is stored outside of this host: the descriptor that a
// manifest has of it, in the OCI's words. It may be stored as JSON. The zero
// value is that of a layer of which nobody knows.
type Stored struct {
	Digest    digest.Digest `json:"digest,omitempty"`
	Size      int64         `json:"size,omitempty"`
	MediaType string        `json:"media_type,omitempty"`
	// From is the repository that it came from, HOST/NAME; empty where nobody
	// knows.
	From string `json:"from,omitempty"`
}

// storedAs is what a descriptor says, docker's types in the OCI's words: the
// bytes are the same.
func storedAs(d v1.Descriptor) Stored {
	media := d.MediaType
	if rest, ok := strings.CutPrefix(media, dockerLayerType); ok {
		media = v1.MediaTypeImageLayer + strings.Replace(rest, ".", "+", 1)
	}
	return Stored{Digest: d.Digest, Size: d.Size, MediaType: media}
}

// descriptor of the layer in a manifest.
func (s Stored) descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: s.MediaType, Digest: s.Digest, Size: s.Size}
}

// Stored says how each of the layers is stored; nil when the image does not
// tell. That it is so has been verified of a layer that was read to its end, and
// of no other.
func (a *Archive) Stored() []Stored { return slices.Clone(a.stored) }
