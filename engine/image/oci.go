package image

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Docker's names for what OCI standardised later.
const (
	dockerListType     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifestType = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfigType   = "application/vnd.docker.container.image.v1+json"
	dockerLayerType    = "application/vnd.docker.image.rootfs.diff.tar"
)

// ociDoc is an index or a manifest. One document cannot be both: that was how
// one digest could name two images (CVE-2021-41190).
type ociDoc struct {
	MediaType string          `json:"mediaType"`
	Manifests []v1.Descriptor `json:"manifests"`
	Config    *v1.Descriptor  `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
	// Annotations of a manifest.
	Annotations map[string]string `json:"annotations"`
}

// baseAnnotation of a manifest names the image that its layers go over. It is
// gantry's own: the OCI has no images that are not whole.
const baseAnnotation = "gantry.image.base"

// maxBase is how long the name of a base may be, in bytes.
const maxBase = 256

// layerTypes are the layers that can be read; how one is compressed is decided
// by its content. Foreign and encrypted layers are not among them.
func layerTypes() []string {
	return []string{
		v1.MediaTypeImageLayer, v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerZstd,
		dockerLayerType, dockerLayerType + ".gzip", dockerLayerType + ".zstd",
	}
}

// maxIndexes is how deep indexes may point to indexes.
const maxIndexes = 3

// openOCI opens an OCI archive: the image of its index for this architecture.
func openOCI(idx *index, opts OpenOptions) (*Archive, error) {
	data, err := idx.document("index.json", "its index", opts.Limits.Manifest)
	if err != nil {
		return nil, err
	}
	for level := range maxIndexes + 1 {
		doc, err := parseOCI(data, opts.Limits)
		if err != nil {
			return nil, err
		}
		if doc.Manifests == nil && level > 0 {
			return openManifest(idx, doc, opts)
		}
		d, err := choose(doc.Manifests, hostArch(opts))
		if err != nil {
			return nil, err
		}
		if data, err = idx.blobDocument(d, "a manifest", opts.Limits.Manifest); err != nil {
			return nil, err
		}
		if err := checkType(data, d.MediaType, opts.Limits); err != nil {
			return nil, err
		}
	}
	return nil, refuse(errdefs.ErrInvalid, "the image's indexes point to indexes more than %d times", maxIndexes)
}

func parseOCI(data []byte, lim Limits) (*ociDoc, error) {
	var doc ociDoc
	if err := decodeJSON(data, lim.JSONDepth, &doc); err != nil {
		return nil, damaged("a manifest cannot be read: %w", err)
	}
	if doc.Manifests != nil && (doc.Layers != nil || doc.Config != nil) {
		return nil, refuse(errdefs.ErrInvalid, "the image has a document that is a manifest and an index at once")
	}
	return &doc, nil
}

// checkType refuses a document that says of itself to be something else than
// its descriptor says.
func checkType(data []byte, want string, lim Limits) error {
	doc, err := parseOCI(data, lim)
	if err != nil {
		return err
	}
	isIndex := want == v1.MediaTypeImageIndex || want == dockerListType
	isManifest := want == v1.MediaTypeImageManifest || want == dockerManifestType
	if !isIndex && !isManifest {
		return refuse(errdefs.ErrUnsupported, "the image has a manifest of the unknown type %.80q", want)
	}
	if doc.MediaType != "" && doc.MediaType != want || isIndex != (doc.Manifests != nil) {
		return damaged("a manifest is not of the type that is stated")
	}
	return nil
}

// choose picks the one image of an index for the architecture: of several that
// differ in their variant only, the one that asks for least. Descriptors without
// a platform count where none has the right one.
func choose(list []v1.Descriptor, arch string) (v1.Descriptor, error) {
	var exact, open []v1.Descriptor
	var have []string
	for _, d := range list {
		_, attestation := d.Annotations["vnd.docker.reference.type"]
		switch {
		case attestation:
		case d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "":
			open = append(open, d)
		case d.Platform.OS == "linux" && d.Platform.Architecture == arch:
			exact = append(exact, d)
		default:
			have = append(have, d.Platform.OS+"/"+d.Platform.Architecture)
		}
	}
	if len(exact) == 0 {
		exact = open
	}
	exact = leastVariant(exact)
	exact = slices.CompactFunc(exact, func(a, b v1.Descriptor) bool { return a.Digest == b.Digest })
	switch len(exact) {
	case 1:
		return exact[0], nil
	case 0:
		return v1.Descriptor{}, refuse(errdefs.ErrUnsupported, "the archive holds no image for linux/%s (it has: %.200s)", arch, strings.Join(have, " "))
	}
	return v1.Descriptor{}, refuse(errdefs.ErrInvalid, "the archive holds %d images; it must hold one", len(exact))
}

// leastVariant keeps those with the lowest variant. The variants of the
// architectures here are v and a number, each a superset of the one before; no
// variant is the baseline, which amd64 calls v1 and arm64 v8.
func leastVariant(list []v1.Descriptor) []v1.Descriptor {
	rank := func(d v1.Descriptor) string {
		if d.Platform == nil || d.Platform.Variant == "v1" || d.Platform.Variant == "v8" {
			return ""
		}
		return d.Platform.Variant
	}
	slices.SortStableFunc(list, func(a, b v1.Descriptor) int { return strings.Compare(rank(a), rank(b)) })
	return slices.DeleteFunc(list, func(d v1.Descriptor) bool { return rank(d) != rank(list[0]) })
}

// blobFor returns the blob of a descriptor, its size checked.
func (x *index) blobFor(d v1.Descriptor, what string) (blob, error) {
	if !isSHA256(d.Digest) {
		return blob{}, refuse(errdefs.ErrInvalid, "the image names %s by %.80q, which is no sha256 digest", what, string(d.Digest))
	}
	b, ok := x.find("blobs/sha256/" + d.Digest.Encoded())
	if !ok {
		return blob{}, damaged("%s is missing", what)
	}
	if b.len != d.Size {
		return blob{}, damaged("%s has %d bytes instead of %d", what, b.len, d.Size)
	}
	return b, nil
}

// blobDocument reads a small blob and verifies it.
func (x *index) blobDocument(d v1.Descriptor, what string, most int64) ([]byte, error) {
	if _, err := x.blobFor(d, what); err != nil {
		return nil, err
	}
	data, err := x.document("blobs/sha256/"+d.Digest.Encoded(), what, most)
	if err != nil {
		return nil, err
	}
	if digest.FromBytes(data) != d.Digest {
		return nil, damaged("%s does not match its digest", what)
	}
	return data, nil
}

// openManifest opens the image of one manifest.
func openManifest(idx *index, m *ociDoc, opts OpenOptions) (*Archive, error) {
	if m.Config == nil || len(m.Layers) > opts.Limits.Layers {
		return nil, refuse(errdefs.ErrInvalid, "the manifest of the image has no configuration or too many layers")
	}
	if t := m.Config.MediaType; t != v1.MediaTypeImageConfig && t != dockerConfigType {
		return nil, refuse(errdefs.ErrUnsupported, "the archive holds an artifact of the type %.80q, not an image", t)
	}
	doc, err := idx.blobDocument(*m.Config, "its configuration", opts.Limits.Config)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(doc, hostArch(opts), opts.Limits)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) != len(config.diffIDs) {
		return nil, damaged("its manifest has %d layers, its configuration %d", len(m.Layers), len(config.diffIDs))
	}
	a := &Archive{kind: OCIArchive, id: m.Config.Digest, config: config.Config, steps: config.steps, base: m.Annotations[baseAnnotation]}
	if len(a.base) > maxBase {
		return nil, refuse(errdefs.ErrInvalid, "the image names the image that it goes over by more than %d bytes", maxBase)
	}
	for i, d := range m.Layers {
		if !slices.Contains(layerTypes(), d.MediaType) {
			return nil, refuse(errdefs.ErrUnsupported, "layer %d of the image has the type %.80q, which is not supported", i, d.MediaType)
		}
		b, err := idx.blobFor(d, "a layer")
		if err != nil {
			return nil, err
		}
		l, err := newLayer(b, d.Digest, config.diffIDs[i], opts.Limits)
		if err != nil {
			return nil, err
		}
		a.layers, a.stored = append(a.layers, l), append(a.stored, storedAs(d))
	}
	return a, nil
}
