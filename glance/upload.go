package glance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// Upload stores the data of an image whose formats are set, and returns when
// the image is active with as many bytes as were sent. content is read once and
// not closed. It is sent in chunks, once: a failed upload is not repeated. When
// Upload fails, one last Read of content may still be under way; closing it
// then must be safe, as it is for files and pipes.
//
// An error of content is returned as it is. errdefs.ErrNotFound says that the
// image has been deleted meanwhile, errdefs.ErrConflict that it has data
// already, errdefs.ErrExhausted that the user's quota or the store is full.
func (c *Client) Upload(ctx context.Context, auth openstack.UserAuth, id string, content io.Reader) error {
	path, err := imagePath(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(context.Canceled)
	src := newSource(ctx, content, c.opts.Stall, func() { cancel(errStalled) })
	defer src.end()
	// The end of the body is not the end of the upload: the store may take its
	// time then, which the session's timeout bounds.
	resp, err := c.rest.Open(ctx, auth, openstack.Request{
		Method: http.MethodPut, Path: path + "/file", Stream: src,
		Header: map[string]string{"Content-Type": "application/octet-stream"},
	})
	if err == nil {
		_ = resp.Body.Close()
		return c.confirm(ctx, auth, id, src.sent.Load())
	}
	if serr := src.failure.Load(); serr != nil {
		return fmt.Errorf("upload image %s: read content: %w", id, *serr)
	}
	if errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("upload image %s: %w: %w", id, errdefs.ErrUnavailable, errStalled)
	}
	if errors.Is(err, errdefs.ErrUnavailable) {
		// A server that refuses early may cut the connection before its answer
		// is read: the image itself says whether it is still there.
		if _, serr := c.Stat(ctx, auth, id); isNotFound(serr) {
			err = serr
		}
	}
	return fmt.Errorf("upload image %s: %w", id, err)
}

// confirm checks what the service made of the upload.
func (c *Client) confirm(ctx context.Context, auth openstack.UserAuth, id string, sent int64) error {
	img, err := c.Stat(ctx, auth, id)
	switch {
	case err != nil:
		return fmt.Errorf("upload image %s: %w", id, err)
	case !img.Active():
		return fmt.Errorf("upload image %s: status %s afterwards: %w", id, img.Status, errdefs.ErrUnavailable)
	case img.SizeBytes != sent:
		return fmt.Errorf("upload image %s: %d bytes sent, %d stored: %w", id, sent, img.SizeBytes, errdefs.ErrCorrupt)
	}
	return nil
}

// source is the body of an upload. A goroutine of its own reads the content, so
// that the transport, which waits for the end of a Read, is free as soon as the
// context ends. A timer runs while the transport does not come back for more.
type source struct {
	pipe    *io.PipeReader
	limit   time.Duration
	stall   *time.Timer
	sent    atomic.Int64
	failure atomic.Pointer[error]
	unhook  func() bool
}

const uploadBuffer = 128 << 10

func newSource(ctx context.Context, content io.Reader, limit time.Duration, stalled func()) *source {
	pr, pw := io.Pipe()
	s := &source{pipe: pr, limit: limit, stall: time.AfterFunc(limit, stalled)}
	s.unhook = context.AfterFunc(ctx, func() { _ = pr.CloseWithError(context.Cause(ctx)) })
	go s.pump(pw, content)
	return s
}

// pump moves the content until its end, or until nobody takes it any more.
func (s *source) pump(to *io.PipeWriter, content io.Reader) {
	buf := make([]byte, uploadBuffer)
	for {
		n, err := content.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.failure.Store(&err)
			}
			_ = to.CloseWithError(err) // io.EOF is the end
			return
		}
	}
}

// Read implements io.Reader for the transport.
func (s *source) Read(p []byte) (int, error) {
	s.stall.Stop()
	n, err := s.pipe.Read(p)
	s.sent.Add(int64(n))
	if err == nil {
		s.stall.Reset(s.limit)
	}
	return n, err
}

func (s *source) end() {
	s.unhook()
	s.stall.Stop()
	_ = s.pipe.Close()
}
