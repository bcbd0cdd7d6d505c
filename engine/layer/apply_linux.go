package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/readahead"
)

// Apply unpacks the tar stream r, decompressed, into dir, an empty directory
// that nobody else can reach meanwhile. It reads r to its end.
//
// On error dir holds a part of the layer and is to be removed by the caller.
// errdefs.ErrInvalid: an entry is refused; the error names it and has a text
// for tenants. errdefs.ErrCorrupt: r is not a whole tar stream.
// errdefs.ErrExhausted: no room on the disk. Errors of r are passed on. r must
// return when ctx ends.
func Apply(ctx context.Context, dir *os.File, r io.Reader, opts Options) (Result, error) {
	a := &applier{
		root:     int(dir.Fd()),
		lim:      opts.Limits.withDefaults(),
		mark:     opts.Opaque,
		holes:    opts.Holes,
		implicit: map[string]bool{".": true},
		skipped:  map[string]bool{},
		buf:      make([]byte, 128<<10),
	}
	defer a.forget()
	var h hash.Hash
	if opts.Verified == "" {
		h = sha256.New()
	}
	if h != nil {
		r = io.TeeReader(r, h)
	}
	end := func() error { return nil }
	if !opts.Ahead {
		p := readahead.New(r)
		r, end = p, p.Close
	}
	err := a.run(ctx, r)
	_ = end()              // r and h are not in use any more
	runtime.KeepAlive(dir) // its descriptor was in use until here
	if err != nil {
		return Result{}, err
	}
	a.res.DiffID = opts.Verified
	if h != nil {
		a.res.DiffID = digest.NewDigest(digest.SHA256, h)
	}
	a.res.ImplicitDirs = slices.Sorted(maps.Keys(a.implicit))
	return a.res, nil
}

type dirTime struct {
	path  string
	mtime time.Time
}

// applier holds one run of Apply.
type applier struct {
	root int
	lim  Limits
	res  Result
	buf  []byte

	// dirs are set to their times after everything in them was made.
	dirs []dirTime
	// implicit holds directories made without an entry; skipped the devices.
	implicit, skipped map[string]bool

	mark  func(path string) // Options.Opaque
	holes bool              // Options.Holes

	// last is the directory that was used last; most entries share it.
	last   string
	lastFD int
}

func (a *applier) run(ctx context.Context, r io.Reader) error {
	limit := a.lim.Bytes + a.lim.Entries*2048
	stream := &io.LimitedReader{R: r, N: limit}
	tr := tar.NewReader(stream)
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("unpack layer: %w: %w", errdefs.ErrAborted, err)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return a.readError(err, stream)
		}
		if a.res.Entries++; a.res.Entries > a.lim.Entries {
			return refuse(hdr.Name, invalid("the layer has more than %d entries", a.lim.Entries))
		}
		if err := a.entry(ctx, hdr, tr); err != nil {
			if se, ok := errors.AsType[*streamError](err); ok {
				return a.readError(se.err, stream)
			}
			return refuse(hdr.Name, err)
		}
	}
	// What follows the end marker is padding, but it counts for the digest.
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{stream}, a.buf); err != nil {
		return a.readError(err, stream)
	}
	if stream.N <= 0 {
		return a.readError(io.ErrUnexpectedEOF, stream)
	}
	return a.setDirTimes()
}

// streamError marks an error of the stream, as against one of the disk.
type streamError struct{ err error }

func (e *streamError) Error() string { return e.err.Error() }

// readError classifies an error of the tar stream.
func (a *applier) readError(err error, stream *io.LimitedReader) error {
	switch {
	case stream.N <= 0:
		err = invalid("the layer is longer than %d bytes", a.lim.Bytes)
		return errdefs.WithPublic(fmt.Errorf("unpack layer: %w", err), "the image is too large to unpack")
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong), errors.Is(err, io.ErrUnexpectedEOF):
		return errdefs.WithPublic(
			fmt.Errorf("unpack layer: after %d entries: %w: %w", a.res.Entries, errdefs.ErrCorrupt, err),
			"the image is damaged: a layer is not a whole tar archive")
	}
	return fmt.Errorf("unpack layer: after %d entries: %w", a.res.Entries, err)
}

// refuse adds the entry's name, and for errors that are the image's fault a
// text for tenants.
func refuse(name string, err error) error {
	const most = 120
	if len(name) > most {
		name = name[:most] + "…"
	}
	full := fmt.Errorf("unpack layer: entry %q: %w", name, err)
	switch {
	case errors.Is(err, errdefs.ErrInvalid):
		reason := strings.TrimSuffix(err.Error(), ": "+errdefs.ErrInvalid.Error())
		return errdefs.WithPublic(full, fmt.Sprintf("the image cannot be unpacked: entry %q: %s", name, reason))
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errdefs.WithPublic(fmt.Errorf("%w: %w", errdefs.ErrExhausted, full),
			"the host has no disk space left to unpack the image")
	}
	return full
}

// entry makes one entry of the stream.
func (a *applier) entry(ctx context.Context, hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(hdr.Name, a.lim)
	if err != nil {
		return err
	}
	k, removed, err := classifyName(name)
	if err != nil {
		return err
	}
	dir, base := splitName(name)
	switch k {
	case kindMeta:
		a.res.Skipped++
		return nil
	case kindOpaque:
		return a.opaque(dir)
	case kindWhiteout:
		return a.whiteout(dir, removed)
	case kindPlain:
	}
	if err := a.checkHeader(hdr); err != nil {
		return err
	}
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return invalid("the root is not a directory")
		}
		return a.finishDir(a.root, name, hdr)
	}
	parent, err := a.openDir(dir)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		if strings.HasSuffix(hdr.Name, "/") {
			return invalid("a file has the name of a directory")
		}
		return a.file(ctx, parent, base, hdr, r)
	case tar.TypeDir:
		return a.dir(parent, name, base, hdr)
	case tar.TypeSymlink:
		return a.symlink(parent, base, hdr)
	case tar.TypeLink:
		return a.link(parent, name, base, hdr)
	case tar.TypeFifo:
		return a.fifo(parent, base, hdr)
	case tar.TypeChar, tar.TypeBlock:
		if hdr.Devmajor == 0 && hdr.Devminor == 0 {
			return invalid("a device 0:0 would be a whiteout")
		}
		a.skipped[name] = true
		a.res.Devices++
		return nil
	}
	return invalid("unknown type %q", hdr.Typeflag)
}

// checkHeader refuses numbers that cannot be stored as they are.
func (a *applier) checkHeader(hdr *tar.Header) error {
	if hdr.Uid < 0 || hdr.Uid > a.lim.MaxID || hdr.Gid < 0 || hdr.Gid > a.lim.MaxID {
		return invalid("owner %d:%d is outside 0 to %d", hdr.Uid, hdr.Gid, a.lim.MaxID)
	}
	if hdr.Size < 0 || hdr.Size > a.lim.Bytes-a.res.Bytes {
		return invalid("the layer holds more than %d bytes", a.lim.Bytes)
	}
	return nil
}
