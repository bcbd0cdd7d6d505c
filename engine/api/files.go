package api

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

func (s *Server) copyOut(w http.ResponseWriter, r *http.Request) error {
	out, err := s.opts.Backend.CopyOut(r.Context(), id(r), engine.CopyRequest{Path: r.URL.Query().Get("path")})
	if err != nil {
		return err
	}
	defer out.Close()
	return stream(w, "application/x-tar", out)
}

func (s *Server) commit(w http.ResponseWriter, r *http.Request) error {
	commit := s.opts.Backend.Commit
	if r.URL.Query().Get("delta") == "1" {
		commit = s.opts.Backend.CommitDelta
	}
	out, err := commit(r.Context(), id(r))
	if err != nil {
		return err
	}
	defer out.Content.Close()
	return stream(w, "application/x-tar", out.Content)
}

func (s *Server) export(w http.ResponseWriter, r *http.Request) error {
	out, err := s.opts.Backend.Export(r.Context(), id(r))
	if err != nil {
		return err
	}
	defer out.Close()
	return stream(w, "application/x-tar", out)
}

func (s *Server) changes(r *http.Request) (any, error) {
	list, err := s.opts.Backend.Changes(r.Context(), id(r))
	if err != nil {
		return nil, err
	}
	out := make([]Difference, len(list))
	for i, c := range list {
		out[i] = Difference{Kind: c.Kind, Path: c.Path}
	}
	return out, nil
}

// copyIn reads the stream as long as the engine's own limits allow.
func (s *Server) copyIn(r *http.Request) (any, error) {
	res, err := s.opts.Backend.CopyIn(r.Context(), id(r), engine.CopyRequest{Path: r.URL.Query().Get("path")}, r.Body)
	if err != nil {
		return nil, err
	}
	return Copied{Bytes: res.Bytes, Entries: res.Entries}, nil
}

func (s *Server) images(r *http.Request) (any, error) {
	list, err := s.opts.Backend.Images(r.Context())
	if err != nil {
		return nil, err
	}
	out := make([]Image, len(list))
	for i, img := range list {
		out[i] = imageOf(img)
	}
	return out, nil
}

func imageOf(img engine.ImageInfo) Image {
	return Image{Ref: img.Ref, ID: img.ID, Size: img.SizeBytes, RootFS: img.RootFS}
}

const maxRef = 512

func checkRef(ref string) error {
	if ref == "" || len(ref) > maxRef {
		return fmt.Errorf("image reference %.80q: %w", ref, errdefs.ErrInvalid)
	}
	for _, c := range ref {
		if c <= ' ' || c == 0x7f {
			return fmt.Errorf("image reference %.80q: %w", ref, errdefs.ErrInvalid)
		}
	}
	return nil
}

func (s *Server) removeImage(r *http.Request) (any, error) {
	ref := r.URL.Query().Get("ref")
	if err := checkRef(ref); err != nil {
		return nil, err
	}
	// the engine's removal is idempotent; an operator who mistypes is to know
	if _, err := s.opts.Backend.Image(r.Context(), ref); err != nil {
		return nil, err
	}
	return nil, s.opts.Backend.RemoveImage(r.Context(), ref)
}

// wholeFile is f if it is a regular file that nothing was read of, and otherwise
// nil.
func wholeFile(f *os.File) *os.File {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != 0 {
		return nil
	}
	return f
}

// importImage reads the archive from a descriptor that the client has opened:
// what it may not read is not read for it.
func (s *Server) importImage(w http.ResponseWriter, r *http.Request) error {
	var req Import
	if err := body(r, &req); err != nil {
		return err
	}
	if err := checkRef(req.Ref); err != nil {
		return err
	}
	if len(req.From) > maxRef {
		return fmt.Errorf("repository %.80q: %w", req.From, errdefs.ErrInvalid)
	}
	ch, files, err := upgrade(w, r)
	if err != nil {
		return err
	}
	s.hijacked.Add(1)
	defer s.hijacked.Done()
	defer ch.close()
	defer linux.CloseAll(files)
	if len(files) != 1 {
		f, _ := failureOf(fmt.Errorf("import image %s: %d files: %w", req.Ref, len(files), errdefs.ErrInvalid))
		return ch.tell(report{Error: f})
	}
	ctx, gone := ch.whileThere(s.life)
	defer gone()
	img, err := s.opts.Backend.Import(ctx, engine.ImportRequest{
		Ref: req.Ref, Content: &interruptible{ctx: ctx, r: files[0]}, File: wholeFile(files[0]), ContainerFormat: req.ContainerFormat, DiskFormat: req.DiskFormat,
		From: req.From, Replace: req.Replace,
	})
	if err != nil {
		f, _ := failureOf(err)
		return ch.tell(report{Error: f})
	}
	doc := imageOf(img)
	return ch.tell(report{Image: &doc})
}
