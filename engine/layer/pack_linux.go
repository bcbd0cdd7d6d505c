package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Stream writes what the last pass has seen as the tar stream of one layer: what
// Diff would have written of the original then. Errors of w are passed on.
func (s *Stage) Stream(ctx context.Context, w io.Writer) (DiffResult, error) {
	return s.stream(ctx, newDiffer(), w)
}

// Pack writes to recipe what beside the pack is needed to make the layer of the
// last pass: Unpacked reads both. It syncs neither.
func (s *Stage) Pack(ctx context.Context, recipe io.Writer) (DiffResult, error) {
	r, err := NewRecorder(recipe, Limits{})
	if err != nil {
		return DiffResult{}, err
	}
	r.whole = true
	d := newDiffer()
	d.headers = &headers{recipe: r}
	res, err := s.stream(ctx, d, io.Discard)
	if err == nil {
		err = d.headers.close()
	}
	return res, err
}

func (s *Stage) stream(ctx context.Context, d *differ, w io.Writer) (DiffResult, error) {
	d.res.Skipped = s.left
	return d.stream(w, func(d *differ) error {
		for _, n := range s.nodes {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
			}
			if n.gone {
				d.res.Skipped++
				continue
			}
			if err := s.entry(d, n); err != nil {
				return fmt.Errorf("entry %q: %w", n.path, err)
			}
		}
		return nil
	})
}

// header of an entry, as Diff writes it.
func (n *staged) header(typ byte) *tar.Header {
	return &tar.Header{
		Typeflag: typ, Name: n.path, Mode: int64(n.mode & 0o7777), Uid: int(n.uid), Gid: int(n.gid), ModTime: time.Unix(n.mtime.Unix()),
		PAXRecords: n.xattrs, Format: tar.FormatPAX,
	}
}

// entry writes one entry.
func (s *Stage) entry(d *differ, n *staged) error {
	switch n.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		hdr := n.header(tar.TypeDir)
		hdr.Name += "/"
		if err := d.write(hdr); err != nil || !n.opaque {
			return err
		}
		if n.path == "." {
			return d.whiteout(opaqueMarker)
		}
		return d.whiteout(hdr.Name + opaqueMarker)
	case unix.S_IFLNK:
		hdr := n.header(tar.TypeSymlink)
		hdr.Linkname = n.link
		return d.write(hdr)
	case unix.S_IFIFO:
		return d.write(n.header(tar.TypeFifo))
	case unix.S_IFCHR:
		dir, base := path.Split(n.path)
		return d.whiteout(dir + whiteoutPrefix + base)
	}
	hdr := n.header(tar.TypeReg)
	d.res.Bytes += n.size
	if n.several {
		if first, ok := d.links[n.id]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.PAXRecords = tar.TypeLink, first, nil
			return d.write(hdr)
		}
		d.links[n.id] = n.path
	}
	hdr.Size = n.size
	if err := d.write(hdr); err != nil || n.size == 0 {
		return err
	}
	if d.headers != nil {
		if err := d.headers.part(n.at, n.size, s.size.Load()); err != nil {
			return err
		}
		defer d.headers.end()
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{d.tw}, struct{ io.Reader }{io.NewSectionReader(s.pack, n.at, n.size)}, d.buf)
	return err
}

// headers passes a tar stream on and writes the recipe of it, whose contents are
// parts of the pack.
type headers struct {
	w       io.Writer
	recipe  *Recorder
	content bool
}

// Write implements io.Writer.
func (h *headers) Write(p []byte) (int, error) {
	if !h.content {
		h.recipe.raw = append(h.recipe.raw, p...)
		if len(h.recipe.raw) >= recipePiece {
			if err := h.recipe.flush(); err != nil {
				return 0, err
			}
		}
	}
	return h.w.Write(p)
}

// part says that what follows, until end, is a part of the pack.
func (h *headers) part(at, length, size int64) error {
	h.content = true
	return h.recipe.part(packName, at, length, size)
}

func (h *headers) end() { h.content = false }

func (h *headers) close() error {
	h.recipe.entry = len(h.recipe.raw)
	return h.recipe.Close()
}

// packName is what recipes call a pack.
const packName = "pack"
