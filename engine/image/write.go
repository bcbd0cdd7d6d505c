package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-project/gantry/engine/content"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Compression of the layers of a new image.
type Compression int

// The compressions. Every tool reads gzip.
const (
	Gzip Compression = iota
	Zstd
	Uncompressed
)

// LayerSource is a layer of a new image.
type LayerSource struct {
	// Open returns the uncompressed tar stream. It is called once.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// DiffID, where it is set, is the digest of what Open returns. If the stream
	// has another, or ends with errdefs.ErrCorrupt, the layer is what Instead
	// returns.
	DiffID  digest.Digest
	Instead func(ctx context.Context) (io.ReadCloser, error)
	// Elsewhere, where it has a digest, is how the layer is stored where the archive
	// goes: it is named so and not in the archive, and of the other fields only
	// DiffID and Step count. Such an archive can be read by who knows where.
	Elsewhere Stored
	// Step is the layer's line in the image's history; without a time it is of
	// the image's.
	Step Step
}

// BuildSpec describes a new image.
type BuildSpec struct {
	Config Config
	// Base, where it is set, makes a delta: an archive that holds only what goes
	// over the layers of another image, which is named so (Archive.Base).
	Base string
	// Layers from the bottom to the top.
	Layers  []LayerSource
	Created time.Time
	// Name is the image's reference in the archive, or empty.
	Name        string
	Compression Compression
	// TempDir is where the compressed layers wait, in a file without a name.
	TempDir string
}

// Built is a new image: an OCI archive as one stream of known size, which also
// carries docker's manifest.json, so that `docker load` of any age reads it.
// It is read once and not safe for concurrent use.
type Built struct {
	size   int64
	id     digest.Digest
	stream io.Reader
	file   *os.File
}

// Size of the archive in bytes.
func (b *Built) Size() int64 { return b.size }

// ID is the digest of the configuration document.
func (b *Built) ID() digest.Digest { return b.id }

// Read implements io.Reader.
func (b *Built) Read(p []byte) (int, error) { return b.stream.Read(p) }

// Close removes what is temporary.
func (b *Built) Close() error { return b.file.Close() }

// Build reads and compresses all layers and returns the archive. On error
// nothing is left. A full disk is errdefs.ErrExhausted.
func Build(ctx context.Context, spec BuildSpec) (*Built, error) {
	f, err := content.TempFile(spec.TempDir)
	if err != nil {
		return nil, err
	}
	b, err := build(ctx, f, spec)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build image: %w", err), f.Close())
	}
	return b, nil
}

func build(ctx context.Context, f *os.File, spec BuildSpec) (*Built, error) {
	doc := configFor(spec)
	manifest := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
	}
	if spec.Base != "" {
		manifest.Annotations = map[string]string{baseAnnotation: spec.Base}
	}
	var blobs []part
	var off int64
	for i, src := range spec.Layers {
		if src.Elsewhere.Digest != "" {
			doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, src.DiffID)
			manifest.Layers = append(manifest.Layers, src.Elsewhere.descriptor())
			continue
		}
		l, err := addLayer(ctx, f, src.Open, spec.Compression)
		if src.DiffID != "" && (errors.Is(err, errdefs.ErrCorrupt) || err == nil && l.diffID != src.DiffID) {
			if err = rewind(f, off); err == nil {
				l, err = addLayer(ctx, f, src.Instead, spec.Compression)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, l.diffID)
		manifest.Layers = append(manifest.Layers, l.desc)
		blobs = append(blobs, part{blobName(l.desc.Digest), l.desc.Size, io.NewSectionReader(f, off, l.desc.Size)})
		off += l.desc.Size
	}
	a := &archiver{seen: map[string]bool{}, created: spec.Created}
	config, err := a.document(v1.MediaTypeImageConfig, doc)
	if err != nil {
		return nil, err
	}
	manifest.Config = config.desc
	mdoc, err := a.document(v1.MediaTypeImageManifest, manifest)
	if err != nil {
		return nil, err
	}
	if err := a.addIndex(spec, doc, manifest, mdoc.desc); err != nil {
		return nil, err
	}
	for _, p := range append([]part{config.part, mdoc.part}, blobs...) {
		if err := a.add(p); err != nil {
			return nil, err
		}
	}
	a.end()
	return &Built{size: a.size, id: config.desc.Digest, stream: io.MultiReader(a.parts...), file: f}, nil
}

// configFor makes the configuration document without its layers.
func configFor(spec BuildSpec) v1.Image {
	c := spec.Config
	created := spec.Created.UTC()
	img := v1.Image{
		Created:  &created,
		Platform: v1.Platform{Architecture: c.Architecture, OS: "linux"},
		Config: v1.ImageConfig{
			User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
			WorkingDir: c.WorkingDir, StopSignal: c.StopSignal,
		},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	if img.Architecture == "" {
		img.Architecture = runtime.GOARCH
	}
	for _, l := range spec.Layers {
		step := v1.History{Created: &created, CreatedBy: l.Step.CreatedBy}
		if !l.Step.Created.IsZero() {
			at := l.Step.Created.UTC()
			step.Created = &at
		}
		img.History = append(img.History, step)
	}
	return img
}

type builtLayer struct {
	desc   v1.Descriptor
	diffID digest.Digest
}

// rewind takes back what was written behind off.
func rewind(f *os.File, off int64) error {
	_, err := f.Seek(off, io.SeekStart)
	return errors.Join(err, f.Truncate(off))
}

// addLayer appends the compressed layer to f.
func addLayer(ctx context.Context, f *os.File, open func(context.Context) (io.ReadCloser, error), c Compression) (builtLayer, error) {
	r, err := open(ctx)
	if err != nil {
		return builtLayer{}, err
	}
	defer r.Close()
	plainHash, storedHash := sha256.New(), sha256.New()
	var size int64
	out := writerFunc(func(p []byte) (int, error) {
		n, err := f.Write(p)
		storedHash.Write(p[:n])
		size += int64(n)
		if err != nil {
			return n, diskError("write layer", err)
		}
		return n, nil
	})
	cw, media, err := compressor(out, c)
	if err != nil {
		return builtLayer{}, err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{cw}, &hashReader{ctxReader(ctx, r), plainHash}, make([]byte, 256<<10))
	if err = errors.Join(err, cw.Close()); err != nil {
		return builtLayer{}, err
	}
	return builtLayer{
		desc:   v1.Descriptor{MediaType: media, Digest: digest.NewDigest(digest.SHA256, storedHash), Size: size},
		diffID: digest.NewDigest(digest.SHA256, plainHash),
	}, nil
}

type hashReader struct {
	r io.Reader
	h hash.Hash
}

// Read implements io.Reader.
func (r *hashReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.h.Write(p[:n])
	return n, err
}

type writerFunc func(p []byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type nopCloser struct{ io.Writer }

// Close implements io.Closer.
func (nopCloser) Close() error { return nil }

// compressor returns the fastest level of c; snapshots are made while a tenant
// waits, and the image service's disk is cheaper than that.
func compressor(w io.Writer, c Compression) (io.WriteCloser, string, error) {
	switch c {
	case Gzip:
		z, err := pgzip.NewWriterLevel(w, pgzip.BestSpeed)
		return z, v1.MediaTypeImageLayerGzip, err
	case Zstd:
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
		return z, v1.MediaTypeImageLayerZstd, err
	case Uncompressed:
	}
	return nopCloser{w}, v1.MediaTypeImageLayer, nil
}

func blobName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

// part is an entry of the archive.
type part struct {
	name string
	size int64
	body io.Reader
}

type document struct {
	part
	desc v1.Descriptor
}

// archiver strings headers and bodies together.
type archiver struct {
	parts   []io.Reader
	size    int64
	seen    map[string]bool
	created time.Time
}

// document makes a blob of a value.
func (a *archiver) document(mediaType string, v any) (document, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return document{}, fmt.Errorf("encode document: %w", err)
	}
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return document{part{blobName(d.Digest), d.Size, bytes.NewReader(data)}, d}, nil
}

// addIndex writes the documents by which tools find the manifest.
func (a *archiver) addIndex(spec BuildSpec, doc v1.Image, m v1.Manifest, desc v1.Descriptor) error {
	desc.Platform = &v1.Platform{Architecture: doc.Architecture, OS: doc.OS}
	if spec.Name != "" {
		desc.Annotations = map[string]string{v1.AnnotationRefName: spec.Name}
	}
	docker := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobName(m.Config.Digest)}
	for _, l := range m.Layers {
		docker.Layers = append(docker.Layers, blobName(l.Digest))
	}
	for _, f := range []struct {
		name string
		v    any
	}{
		{v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion}},
		{v1.ImageIndexFile, v1.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{desc},
		}},
		{"manifest.json", []any{docker}},
	} {
		if f.name == "manifest.json" && (spec.Base != "" || slices.ContainsFunc(spec.Layers, func(l LayerSource) bool { return l.Elsewhere.Digest != "" })) {
			continue // docker would take it for a whole image
		}
		data, err := json.Marshal(f.v)
		if err != nil {
			return fmt.Errorf("encode %s: %w", f.name, err)
		}
		if err := a.add(part{f.name, int64(len(data)), bytes.NewReader(data)}); err != nil {
			return err
		}
	}
	return nil
}

// add appends an entry, once for each name: equal layers are one blob.
func (a *archiver) add(p part) error {
	if a.seen[p.name] {
		return nil
	}
	a.seen[p.name] = true
	var head bytes.Buffer
	err := tar.NewWriter(&head).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: p.name, Mode: 0o644, Size: p.size, ModTime: a.created.Truncate(time.Second),
	})
	if err != nil {
		return fmt.Errorf("write header of %s: %w", p.name, err)
	}
	pad := (512 - p.size%512) % 512
	a.size += int64(head.Len()) + p.size + pad
	a.parts = append(a.parts, &head, p.body, bytes.NewReader(make([]byte, pad)))
	return nil
}

// end appends the two blocks of zeros that end a tar.
func (a *archiver) end() {
	a.size += 1024
	a.parts = append(a.parts, bytes.NewReader(make([]byte, 1024)))
}
