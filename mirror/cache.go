package mirror

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// cached keeps the layers of an image that comes from a registry until its copy
// is whole. A file of the cache appears under its digest when it is whole and
// was verified.
func (m *Mirror) cached(img v1.Image) (*source, error) {
	if m.opts.Cache == "" {
		return &source{Image: img}, nil
	}
	if err := os.MkdirAll(m.opts.Cache, 0o700); err != nil {
		return nil, fmt.Errorf("cache of blobs: %w", err)
	}
	c := &cachedImage{Image: img, dir: m.opts.Cache}
	return &source{Image: c, done: []func() error{c.drop}}, nil
}

type cachedImage struct {
	v1.Image
	dir string
}

// Layers implements v1.Image.
func (c *cachedImage) Layers() ([]v1.Layer, error) {
	layers, err := c.Image.Layers()
	for i, l := range layers {
		layers[i] = &cachedLayer{l, c.dir}
	}
	return layers, err
}

// LayerByDigest implements v1.Image.
func (c *cachedImage) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	l, err := c.Image.LayerByDigest(h)
	if err != nil {
		return nil, err
	}
	return &cachedLayer{l, c.dir}, nil
}

// drop removes the layers of this image.
func (c *cachedImage) drop() error {
	manifest, err := c.Manifest()
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range manifest.Layers {
		if err := os.Remove(blobPath(c.dir, d.Digest)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func blobPath(dir string, h v1.Hash) string { return filepath.Join(dir, h.Algorithm+"-"+h.Hex) }

// cachedLayer is a layer whose stored form may lie in the cache.
type cachedLayer struct {
	v1.Layer
	dir string
}

// Compressed implements v1.Layer.
func (l *cachedLayer) Compressed() (io.ReadCloser, error) {
	digest, err := l.Digest()
	if err != nil {
		return nil, err
	}
	path := blobPath(l.dir, digest)
	if f, err := os.Open(path); err == nil {
		v, err := verify(f, digest)
		if err == nil {
			return v, nil
		}
		// a power cut has damaged it
		if err := errors.Join(f.Close(), os.Remove(path)); err != nil {
			return nil, err
		}
	}
	r, err := l.Layer.Compressed() // verifies
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(l.dir, "part-")
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &keeping{ReadCloser: r, file: f, path: path}, nil
}

// verify reads a file once, to know it, and returns it at its beginning.
func verify(f *os.File, want v1.Hash) (*os.File, error) {
	got, _, err := v1.SHA256(f)
	if err == nil && got != want {
		err = fmt.Errorf("blob %s is %s: %w", want, got, errdefs.ErrCorrupt)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return f, err
}

// keeping writes what is read into a file that gets its name at the end.
type keeping struct {
	io.ReadCloser
	file  *os.File
	path  string
	ended bool
	err   error
}

// Read implements io.Reader.
func (k *keeping) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	if k.err == nil && n > 0 {
		_, k.err = k.file.Write(p[:n])
	}
	k.ended = errors.Is(err, io.EOF)
	return n, err
}

// Close implements io.Closer. A blob that could not be kept is no failure.
func (k *keeping) Close() error {
	err := k.ReadCloser.Close()
	kept := errors.Join(k.err, k.file.Close())
	if kept == nil && k.ended {
		kept = os.Rename(k.file.Name(), k.path)
	}
	if kept != nil || !k.ended {
		_ = os.Remove(k.file.Name())
	}
	return err
}
