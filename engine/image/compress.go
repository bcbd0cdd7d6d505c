package image

import (
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/readahead"
)

// Memory that a stream may make its decompressor use, in bytes: the window of
// zstd --ultra -22 and twice the dictionary of xz -9.
const (
	maxWindow = 128 << 20
	maxDict   = 128 << 20
)

// decompress returns the uncompressed form of src, whose compression is c,
// within the limits. Everything that follows the compressed stream is an
// error; several streams in a row count as one. It decompresses in process and
// needs bounded memory.
func decompress(c compression, src io.Reader, lim Limits) (io.ReadCloser, error) {
	g := &guard{src: &countReader{r: src}, lim: lim, name: c, closer: func() {}}
	var err error
	switch c {
	case plain:
		g.r, g.raw = g.src, true
	case gz:
		g.r, err = gzip.NewReader(g.src)
	case bz2:
		g.r = bzip2.NewReader(g.src)
	case xzip:
		g.r, err = xz.NewReader(g.src, maxDict)
	case zst:
		// One goroutine: src and guard stay unshared.
		var d *zstd.Decoder
		d, err = zstd.NewReader(g.src, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err == nil {
			g.r, g.closer = d, d.Close
		}
	}
	if err != nil {
		return nil, g.classify(err)
	}
	return g, nil
}

// decompressAhead is decompress in a goroutine of its own, which runs ahead of
// the consumer (at most 1 MiB) until the end or Close.
func decompressAhead(c compression, src io.Reader, lim Limits) (io.ReadCloser, error) {
	r, err := decompress(c, src, lim)
	if err != nil || c == plain {
		return r, err
	}
	return &aheadReader{readahead.New(r), r}, nil
}

type aheadReader struct {
	*readahead.Reader
	src io.Closer
}

// Close implements io.Closer.
func (a *aheadReader) Close() error { return errors.Join(a.Reader.Close(), a.src.Close()) }

// countReader counts what a decompressor takes and remembers errors of the
// source, so that they are not mistaken for errors of the format.
type countReader struct {
	r   io.Reader
	n   int64
	err error
}

// Read implements io.Reader.
func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// guard watches a decompressor: size, ratio, trailing bytes.
type guard struct {
	r      io.Reader
	raw    bool
	src    *countReader
	lim    Limits
	name   compression
	n      int64
	closer func()
}

// Read implements io.Reader.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	g.n += int64(n)
	if err := g.check(); err != nil {
		return 0, err
	}
	if err == nil {
		return n, nil
	}
	if err != io.EOF {
		return n, g.classify(err)
	}
	if k, err := io.Copy(io.Discard, g.src); err != nil {
		return n, g.classify(err)
	} else if k > 0 {
		return n, damaged("%d bytes follow the end of the %s stream", k, g.name)
	}
	return n, io.EOF
}

// check refuses what has become too much.
func (g *guard) check() error {
	switch {
	case g.n > g.lim.LayerBytes:
		return refuse(errdefs.ErrInvalid, "the image is too large: a layer has more than %d bytes", g.lim.LayerBytes)
	case !g.raw && g.n > g.lim.RatioFrom && g.n/g.lim.Ratio > g.src.n:
		return refuse(errdefs.ErrInvalid, "the image expands to more than %d times its size", g.lim.Ratio)
	}
	return nil
}

func (g *guard) classify(err error) error {
	if g.src.err != nil {
		return fmt.Errorf("read image: %w", g.src.err)
	}
	return damaged("the %s stream cannot be read: %w", g.name, err)
}

// Close implements io.Closer.
func (g *guard) Close() error {
	g.closer()
	return nil
}
