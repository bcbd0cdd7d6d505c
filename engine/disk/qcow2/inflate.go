package qcow2

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a zstd frame may make the decompressor use: clusters
// have 2 MiB at most.
const maxWindow = 8 << 20

// inflater uncompresses clusters, one after the other, with decompressors that
// it makes at the first one.
type inflater struct {
	zstd    bool
	deflate io.ReadCloser
	frames  *zstd.Decoder
}

// inflate fills data from the stream at the beginning of src. What follows the
// stream is of no meaning: streams end anywhere in a sector.
func (f *inflater) inflate(data []byte, src io.Reader) error {
	watched := &watch{r: src}
	r, err := f.reader(watched)
	if err == nil {
		_, err = io.ReadFull(r, data)
	}
	switch {
	case watched.err != nil:
		return fmt.Errorf("read qcow2 cluster: %w", watched.err)
	case err != nil:
		return corrupt("compressed data cannot be read: %v", err)
	}
	return nil
}

func (f *inflater) reader(src io.Reader) (io.Reader, error) {
	switch {
	case f.zstd && f.frames == nil:
		var err error
		f.frames, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		return f.frames, err
	case f.zstd:
		return f.frames, f.frames.Reset(src)
	case f.deflate == nil:
		f.deflate = flate.NewReader(src)
		return f.deflate, nil
	}
	return f.deflate, f.deflate.(flate.Resetter).Reset(src, nil)
}

// watch keeps errors of the source apart from those of the format.
type watch struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (w *watch) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}
