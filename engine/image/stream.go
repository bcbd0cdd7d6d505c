package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// HeadLen is how much of an image OpenStream wants to see.
const HeadLen = 256 << 10

// OpenStream says whether an image that begins with head (HeadLen bytes, or all
// there are) is the tarball of a root file system, which can be unpacked while it
// comes, and returns its one layer, which can be opened once. body is the whole
// image, head included. Any other image is read at random: it has to be stored,
// and given to Open, which refuses what is no image.
func OpenStream(head []byte, body io.Reader, opts OpenOptions) (Layer, bool) {
	opts.Limits = opts.Limits.withDefaults()
	s := sniff(head[:min(len(head), sniffLen)])
	if opts.ContainerFormat == "docker" || s.disk != "" || checkContent(s, opts) != nil || checkKind(Rootfs, opts) != nil {
		return nil, false
	}
	first, err := firstEntry(s.compression, blob{bytes.NewReader(head), 0, int64(len(head))}, opts.Limits)
	if err != nil || first == "" || looksLikeArchive(first) {
		return nil, false
	}
	if s.compression == plain && opts.ContainerFormat != "bare" {
		return nil, false // an archive shows in its last entry only
	}
	return &streamLayer{body: body, compression: s.compression, lim: opts.Limits}, true
}

// streamLayer is a Layer that comes once.
type streamLayer struct {
	body        io.Reader
	compression compression
	lim         Limits
	opened      bool
}

// DiffID implements Layer.
func (*streamLayer) DiffID() digest.Digest { return "" }

// StoredSize implements Layer: it is not known.
func (*streamLayer) StoredSize() int64 { return -1 }

// Open implements Layer. The end of the stream is that of the image: its reader's
// last error comes before it.
func (l *streamLayer) Open(ctx context.Context) (io.ReadCloser, error) {
	if l.opened {
		return nil, fmt.Errorf("open image: it has been read: %w", errdefs.ErrConflict)
	}
	l.opened = true
	r, err := decompressAhead(l.compression, l.body, l.lim)
	if err != nil {
		return nil, err
	}
	return &layerReader{ctxReader(ctx, &toTheEnd{r, l.body}), r}, nil
}

// toTheEnd reads the source to its end before it says that the stream has ended.
type toTheEnd struct {
	r   io.Reader
	src io.Reader
}

// Read implements io.Reader.
func (t *toTheEnd) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if left, serr := io.Copy(io.Discard, t.src); serr != nil {
		return n, serr
	} else if left > 0 {
		return n, damaged("%d bytes follow its end", left)
	}
	return n, io.EOF
}
