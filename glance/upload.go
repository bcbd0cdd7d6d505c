package glance

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/openstack"
)

// Upload stores the data of an image whose formats are set, and returns when
// the image is active with as many bytes as were sent, and with their hash. content is read once and
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
	src := newSource(ctx, content, c.opts, func() { cancel(errStalled) })
	defer src.end()
	defer c.watch(id, src)()
	// The end of the body is not the end of the upload: the store may take its
	// time then, which the session's timeout bounds.
	resp, err := c.rest.Open(ctx, auth, openstack.Request{
		Method: http.MethodPut, Path: path + "/file", Stream: src,
		Header: map[string]string{"Content-Type": "application/octet-stream"},
	})
	if err == nil {
		_ = resp.Body.Close()
		return c.confirm(ctx, auth, id, src)
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
func (c *Client) confirm(ctx context.Context, auth openstack.UserAuth, id string, src *source) error {
	img, err := c.Stat(ctx, auth, id)
	sent := src.sent.Load()
	switch {
	case err != nil:
		return fmt.Errorf("upload image %s: %w", id, err)
	case !img.Active():
		return fmt.Errorf("upload image %s: status %s afterwards: %w", id, img.Status, errdefs.ErrUnavailable)
	case img.SizeBytes != sent:
		return fmt.Errorf("upload image %s: %d bytes sent, %d stored: %w", id, sent, img.SizeBytes, errdefs.ErrCorrupt)
	case img.HashAlgo == "sha512" && img.HashValue != src.digest():
		return fmt.Errorf("upload image %s: what is stored has another hash: %w", id, errdefs.ErrCorrupt)
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
	begun   time.Time
	rate    int64

	mu  sync.Mutex
	sum hash.Hash // of what was sent; guarded by mu
}

// digest of what was sent, in hex.
func (s *source) digest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return hex.EncodeToString(s.sum.Sum(nil))
}

const uploadBuffer = 128 << 10

func newSource(ctx context.Context, content io.Reader, opts Options, stalled func()) *source {
	pr, pw := io.Pipe()
	s := &source{
		pipe: pr, limit: opts.Stall, stall: time.AfterFunc(opts.Stall, stalled), begun: time.Now(), rate: opts.UploadRate, sum: sha512.New(),
	}
	s.unhook = context.AfterFunc(ctx, func() { _ = pr.CloseWithError(context.Cause(ctx)) })
	go s.pump(ctx, pw, content)
	return s
}

// pump moves the content until its end, or until nobody takes it any more.
func (s *source) pump(ctx context.Context, to *io.PipeWriter, content io.Reader) {
	buf := make([]byte, uploadBuffer)
	var total int64
	for {
		n, err := content.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
			total += int64(n)
			s.wait(ctx, total)
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

// wait keeps to the rate.
func (s *source) wait(ctx context.Context, total int64) {
	if s.rate <= 0 {
		return
	}
	due := s.begun.Add(time.Duration(float64(total) / float64(s.rate) * float64(time.Second)))
	left := time.NewTimer(time.Until(due))
	defer left.Stop()
	select {
	case <-left.C:
	case <-ctx.Done():
	}
}

// watch says in the log how far an upload is, until the returned function is
// called.
func (c *Client) watch(id string, s *source) (stop func()) {
	tick, done := time.NewTicker(c.opts.Progress), make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.log.Info().Str(logging.Image, id).Int64("bytes", s.sent.Load()).Dur(logging.Took, time.Since(s.begun)).Msg("upload goes on")
			case <-done:
				return
			}
		}
	})
	return func() { close(done); ended.Wait() }
}

// Read implements io.Reader for the transport.
func (s *source) Read(p []byte) (int, error) {
	s.stall.Stop()
	n, err := s.pipe.Read(p)
	s.sent.Add(int64(n))
	s.mu.Lock()
	s.sum.Write(p[:n])
	s.mu.Unlock()
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
