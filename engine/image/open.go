package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/content"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Archive is an Image read from a file. It keeps the file that was given to
// Open, which must stay readable and unchanged until Close.
type Archive struct {
	kind   Kind
	id     digest.Digest
	config Config
	layers []Layer
	steps  []Step
	stored []Stored // or nil
	base   string
	spool  *os.File // unpacked form of an archive compressed as a whole, or nil
}

// Kind implements Image.
func (a *Archive) Kind() Kind { return a.kind }

// ID implements Image.
func (a *Archive) ID() digest.Digest { return a.id }

// Config implements Image.
func (a *Archive) Config() Config { return a.config }

// Layers implements Image.
func (a *Archive) Layers() []Layer { return a.layers }

// History says how each of the layers came about; nil when the image does not
// tell.
func (a *Archive) History() []Step { return a.steps }

// Base names the image whose layers go below these, when the archive is a delta;
// it is empty for a whole image. The name is what BuildSpec.Base was.
func (a *Archive) Base() string { return a.base }

// Close releases what Open made. It does not close the file given to Open.
func (a *Archive) Close() error {
	if a.spool == nil {
		return nil
	}
	return a.spool.Close()
}

// Open reads the index, manifest and configuration of the image in r, size
// bytes long. Layers are read later, when they are opened.
//
// errdefs.ErrInvalid: no image that can boot, or not what was declared.
// errdefs.ErrUnsupported: a disk image of a format that is not read, another
// architecture, a feature that is not there. errdefs.ErrCorrupt: digests or formats do not hold. All of these
// carry a text for tenants.
func Open(ctx context.Context, r io.ReaderAt, size int64, opts OpenOptions) (*Archive, error) {
	opts.Limits = opts.Limits.withDefaults()
	head, err := readHead(r, size)
	if err != nil {
		return nil, err
	}
	s := sniff(head)
	if err := checkContent(s, opts); err != nil {
		return nil, err
	}
	if s.disk != "" {
		return openDisk(s.disk, blob{r, 0, size}, opts), nil
	}
	if s.compression != plain {
		return openCompressed(ctx, s.compression, blob{r, 0, size}, opts)
	}
	return openTar(s.compression, blob{r, 0, size}, opts)
}

// openTar opens a plain tar.
func openTar(c compression, b blob, opts OpenOptions) (*Archive, error) {
	idx, err := readIndex(b.src, b.len, opts.Limits)
	if err != nil {
		return nil, err
	}
	kind := idx.kind()
	if err := checkKind(kind, opts); err != nil {
		return nil, err
	}
	switch kind {
	case OCIArchive:
		return openOCI(idx, opts)
	case DockerArchive:
		return openDocker(idx, opts)
	case Rootfs, DiskImage:
	}
	return rootfs(c, b, opts), nil
}

// rootfs is the image of a root file system tarball: one layer, no
// configuration.
func rootfs(c compression, b blob, opts OpenOptions) *Archive {
	return &Archive{kind: Rootfs, layers: []Layer{&layer{blob: b, compression: c, lim: opts.Limits}}}
}

// openCompressed opens a compressed tar. A root file system stays as it is and
// is unpacked as a stream; an archive must be read at random and is spooled.
func openCompressed(ctx context.Context, c compression, b blob, opts OpenOptions) (*Archive, error) {
	first, err := firstEntry(c, b, opts.Limits)
	if err != nil {
		return nil, err
	}
	declared := opts.ContainerFormat == "docker" && opts.SpoolDir != ""
	if !declared && !looksLikeArchive(first) {
		if err := checkKind(Rootfs, opts); err != nil {
			return nil, err
		}
		return rootfs(c, b, opts), nil
	}
	if opts.ContainerFormat == "bare" {
		return nil, checkKind(DockerArchive, opts)
	}
	if opts.SpoolDir == "" {
		return nil, refuse(errdefs.ErrUnsupported, "image archives that are compressed as a whole (%s) are not supported", c)
	}
	f, err := spool(ctx, c, b, opts)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	var a *Archive
	if err == nil {
		a, err = openTar(plain, blob{f, 0, st.Size()}, opts)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	a.spool = f
	return a, nil
}

// firstEntry returns the name of the first entry that says anything.
func firstEntry(c compression, b blob, lim Limits) (string, error) {
	r, err := decompress(c, b.open(), lim)
	if err != nil {
		return "", err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	for range 3 {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if _, ok := errors.AsType[*errdefs.Public](err); ok {
				return "", err
			}
			return "", tarError(err)
		}
		if hdr.Typeflag != tar.TypeXGlobalHeader && hdr.Name != "./" && hdr.Name != "." {
			return hdr.Name, nil
		}
	}
	return "", nil
}

// spool unpacks b into a file without a name.
func spool(ctx context.Context, c compression, b blob, opts OpenOptions) (*os.File, error) {
	r, err := decompressAhead(c, b.open(), opts.Limits)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := content.TempFile(opts.SpoolDir)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, ctxReader(ctx, r)); err != nil {
		return nil, errors.Join(diskError("spool image", err), f.Close())
	}
	return f, nil
}

func diskError(op string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errdefs.WithPublic(fmt.Errorf("%s: %w: %w", op, errdefs.ErrExhausted, err),
			"the host has no disk space left for the image")
	}
	return fmt.Errorf("%s: %w", op, err)
}

type readerFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// ctxReader fails once ctx has ended.
func ctxReader(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		return r.Read(p)
	})
}

// layer is a Layer in a file.
type layer struct {
	blob
	compression compression
	// stored and diffID are what the image states, or empty.
	stored, diffID digest.Digest
	lim            Limits
}

// DiffID implements Layer.
func (l *layer) DiffID() digest.Digest { return l.diffID }

// StoredSize implements Layer.
func (l *layer) StoredSize() int64 { return l.len }

// Open implements Layer.
func (l *layer) Open(ctx context.Context) (io.ReadCloser, error) {
	var src io.Reader = l.open()
	// The digest of a plain layer is its diff ID, which is checked below.
	if l.stored != "" && l.stored != l.diffID {
		src = content.NewVerifier(src, l.stored, l.len)
	}
	r, err := decompressAhead(l.compression, src, l.lim)
	if err != nil {
		return nil, err
	}
	out := ctxReader(ctx, r)
	if l.diffID != "" {
		out = content.NewVerifier(out, l.diffID, -1)
	}
	return &layerReader{out, r}, nil
}

type layerReader struct {
	r io.Reader
	io.Closer
}

// Read implements io.Reader.
func (l *layerReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if errors.Is(err, errdefs.ErrCorrupt) && errdefs.PublicText(err, "") == "" {
		err = errdefs.WithPublic(err, "the image is damaged: a layer does not match its digest")
	}
	return n, err
}

// newLayer finds out how the layer in b is compressed.
func newLayer(b blob, stored, diffID digest.Digest, lim Limits) (*layer, error) {
	head, err := readHead(b.open(), min(b.len, 512))
	if err != nil {
		return nil, err
	}
	return &layer{blob: b, compression: sniffCompression(head), stored: stored, diffID: diffID, lim: lim}, nil
}

// Validate reads every layer of img to its end, so that all digests that the
// image states are verified, and returns all that is wrong, joined.
func Validate(ctx context.Context, img Image) error {
	var errs []error
	for i, l := range img.Layers() {
		r, err := l.Open(ctx)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			err = errors.Join(err, r.Close())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("layer %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}
