package mirror

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// maxEntries of an archive that is read: what has more is no image.
const maxEntries = 10_000

// fromDir reads a directory with an OCI layout.
func (m *Mirror) fromDir(dir string) (*source, error) {
	idx, err := layout.ImageIndexFromPath(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalid, err)
	}
	images, err := m.choose(idx)
	if err != nil {
		return nil, err
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("%d images for %s in the layout, not one: %w", len(images), m.platform.String(), errdefs.ErrInvalid)
	}
	return &source{Image: images[0]}, m.check(images[0])
}

// choose finds the images of an index, and of those in it, for the platform.
func (m *Mirror) choose(idx v1.ImageIndex) ([]v1.Image, error) {
	fits := func(d v1.Descriptor) bool {
		_, attestation := d.Annotations["vnd.docker.reference.type"]
		return !attestation && (d.Platform == nil || m.fits(*d.Platform))
	}
	images, err := partial.FindImages(idx, fits)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalid, err)
	}
	inner, err := partial.FindIndexes(idx, func(v1.Descriptor) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalid, err)
	}
	for _, i := range inner {
		more, err := partial.FindImages(i, fits)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalid, err)
		}
		images = append(images, more...)
	}
	return images, nil
}

// fits reports whether an image of an index is for the platform.
func (m *Mirror) fits(p v1.Platform) bool {
	return p.OS == m.platform.OS && p.Architecture == m.platform.Architecture &&
		(m.platform.Variant == "" || p.Variant == m.platform.Variant)
}

// fromFile reads an archive.
func (m *Mirror) fromFile(ctx context.Context, file string) (*source, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return m.fromArchive(ctx, f, file)
}

// fromArchive reads an archive from a stream; file is where it lies, or empty.
func (m *Mirror) fromArchive(ctx context.Context, r io.Reader, file string) (src *source, err error) {
	dir, err := os.MkdirTemp(m.opts.Temp, "gantry-mirror-")
	if err != nil {
		return nil, err
	}
	drop := func() { _ = os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			drop()
		}
	}()
	if err := unpack(ctx, dir, r); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
		src, err := m.fromDir(dir)
		if err != nil {
			return nil, err
		}
		src.closes = append(src.closes, drop)
		return src, nil
	}
	if file == "" {
		if file, err = repack(dir); err != nil {
			return nil, err
		}
	}
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: no archive of an image: %w", errdefs.ErrInvalid, err)
	}
	return &source{Image: img, closes: []func(){drop}}, m.check(img)
}

// unpack writes the files of an archive below dir. Nothing but regular files is
// made, whatever it holds.
func unpack(ctx context.Context, dir string, r io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	archive := tar.NewReader(r)
	for range maxEntries {
		hdr, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: no archive, or a damaged one: %w", errdefs.ErrInvalid, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, ctx.Err())
		}
		if hdr.Typeflag != tar.TypeReg {
			continue
		}
		if err := unpackFile(root, hdr.Name, archive); err != nil {
			return fmt.Errorf("%w: entry %.200q: %w", errdefs.ErrInvalid, hdr.Name, err)
		}
	}
	return fmt.Errorf("%w: more than %d entries", errdefs.ErrInvalid, maxEntries)
}

func unpackFile(root *os.Root, name string, r io.Reader) error {
	name = path.Clean(name)
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// repack writes what was unpacked as a tar again, for a reader that wants one,
// and returns its path.
func repack(dir string) (string, error) {
	name := filepath.Join(dir, ".archive")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || p == name {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		in, err := os.Open(p)
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		info, err := in.Stat()
		if err == nil {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: rel, Mode: 0o600, Size: info.Size()})
		}
		if err == nil {
			_, err = io.Copy(w, in)
		}
		return err
	})
	return name, errors.Join(err, w.Close(), f.Close())
}

// toDir adds the image to an OCI layout, in place of what it held.
func (m *Mirror) toDir(img v1.Image, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	idx, err := layout.FromPath(dir)
	if err != nil {
		idx, err = layout.Write(dir, empty.Index)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalid, err)
	}
	return classify(idx.ReplaceImage(img, func(v1.Descriptor) bool { return true }, layout.WithPlatform(m.platform)))
}

// toFile writes an archive that appears when it is whole.
func (m *Mirror) toFile(ctx context.Context, img v1.Image, file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-")
	if err != nil {
		return err
	}
	err = errors.Join(m.write(ctx, img, f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// stream is write as a reader.
func (m *Mirror) stream(ctx context.Context, img v1.Image) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(m.write(ctx, img, w)) }()
	return r
}

// write writes an image as an OCI archive, its layers as they are stored. Each
// blob is verified on the way: a wrong one ends the stream with
// errdefs.ErrCorrupt.
func (m *Mirror) write(ctx context.Context, img v1.Image, w io.Writer) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return classify(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return classify(err)
	}
	parsed, err := img.Manifest()
	if err != nil {
		return classify(err)
	}
	desc, err := partial.Descriptor(img)
	if err != nil {
		return classify(err)
	}
	desc.Platform = &v1.Platform{OS: m.platform.OS, Architecture: m.platform.Architecture}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{*desc}})
	if err != nil {
		return err
	}
	a := &archiveWriter{tar: tar.NewWriter(w), seen: map[string]bool{}, mirror: m}
	for _, l := range parsed.Layers {
		a.total += l.Size
	}
	for _, doc := range []struct {
		name string
		data []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{blobName(desc.Digest), manifest},
		{blobName(parsed.Config.Digest), config},
	} {
		if err := a.add(doc.name, int64(len(doc.data)), bytes.NewReader(doc.data)); err != nil {
			return err
		}
	}
	for _, d := range parsed.Layers {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		l, err := img.LayerByDigest(d.Digest)
		if err != nil {
			return classify(err)
		}
		if err := a.layer(l, d); err != nil {
			return fmt.Errorf("layer %s: %w", d.Digest, err)
		}
	}
	return a.tar.Close()
}

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

type archiveWriter struct {
	tar         *tar.Writer
	seen        map[string]bool
	mirror      *Mirror
	done, total int64
}

func (a *archiveWriter) add(name string, size int64, r io.Reader) error {
	if a.seen[name] {
		return nil // equal layers are one blob
	}
	a.seen[name] = true
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err := io.Copy(a.tar, r)
	return err
}

func (a *archiveWriter) layer(l v1.Layer, d v1.Descriptor) error {
	if d.Digest.Algorithm != "sha256" {
		return fmt.Errorf("digest %.80q: %w", d.Digest.String(), errdefs.ErrUnsupported)
	}
	r, err := l.Compressed()
	if err != nil {
		return classify(err)
	}
	sum := sha256.New()
	read := readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		sum.Write(p[:n])
		if a.done += int64(n); a.mirror.opts.Progress != nil && n > 0 {
			a.mirror.opts.Progress(Progress{a.done, a.total})
		}
		if err != nil && !errors.Is(err, io.EOF) {
			err = classify(err)
		}
		return n, err
	})
	seen := a.seen[blobName(d.Digest)]
	err = errors.Join(a.add(blobName(d.Digest), d.Size, read), r.Close())
	if err != nil || seen {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != d.Digest.Hex {
		return fmt.Errorf("it is sha256:%s: %w", got, errdefs.ErrCorrupt)
	}
	return nil
}

type readerFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// spool writes a stream into a file.
func (m *Mirror) spool(ctx context.Context, r io.Reader) (name string, drop func(), err error) {
	f, err := os.CreateTemp(m.opts.Temp, "gantry-mirror-")
	if err != nil {
		return "", nil, err
	}
	drop = func() { _ = os.Remove(f.Name()) }
	_, err = io.Copy(f, readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		return r.Read(p)
	}))
	if err = errors.Join(err, f.Close()); err != nil {
		drop()
		return "", nil, err
	}
	return f.Name(), drop, nil
}
