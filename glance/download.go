package glance

import (
	"context"
	"crypto/md5"  // Glance's checksum
	"crypto/sha1" // one of Glance's algorithms
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/openstack"
)

// errStalled ends a transfer that stands still.
var errStalled = errors.New("the transfer stands still")

// digest picks the strongest hash that the image has and that is known here;
// nil means that it has none (glanceclient/v2/images.py data()).
func (i Image) digest() (h hash.Hash, want string) {
	if i.HashValue != "" {
		switch i.HashAlgo {
		case "sha512":
			return sha512.New(), i.HashValue
		case "sha384":
			return sha512.New384(), i.HashValue
		case "sha256":
			return sha256.New(), i.HashValue
		case "sha224":
			return sha256.New224(), i.HashValue
		case "sha1":
			return sha1.New(), i.HashValue // the cloud's choice
		case "md5":
			return md5.New(), i.HashValue // the cloud's choice
		}
	}
	if i.Checksum != "" {
		return md5.New(), i.Checksum // Glance's checksum
	}
	return nil, ""
}

// Open streams the data of an image that Stat has returned. The reader ends
// with io.EOF only when length and hash are those of img; if they are not, its
// last error is errdefs.ErrCorrupt, and what was read before must not be used.
// It never gives more than the declared size. A connection that breaks or
// stands still is taken up where it was, Options.Tries in all; after that the
// error is errdefs.ErrUnavailable.
//
// Open itself fails when the image has no data (errdefs.ErrInvalid), is gone
// (errdefs.ErrNotFound) or may not be read (errdefs.ErrForbidden). The reader
// lives until Close or the end of ctx; it is not safe for concurrent use.
func (c *Client) Open(ctx context.Context, auth openstack.UserAuth, img Image) (io.ReadCloser, error) {
	path, err := imagePath(img.ID)
	if err != nil {
		return nil, err
	}
	if img.Status != "" && !img.Active() {
		return nil, errdefs.WithPublic(fmt.Errorf("read image %s: status %s: %w", img.ID, img.Status, errdefs.ErrInvalid),
			fmt.Sprintf("Image %s is not active.", img.ID))
	}
	d := &download{c: c, ctx: ctx, auth: auth, img: img, path: path + "/file"}
	if d.hash, d.want = img.digest(); d.hash == nil {
		c.log.Warn().Str(logging.Image, img.ID).Msg("image has no hash: only its length is checked")
	}
	if err := d.connect(); err != nil {
		return nil, err
	}
	return d, nil
}

// download is the reader. It is used by one goroutine.
type download struct {
	c    *Client
	ctx  context.Context //nolint:containedctx // an io.Reader has no other way
	auth openstack.UserAuth
	img  Image
	path string

	hash hash.Hash
	want string

	tries  int
	offset int64 // bytes delivered
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	stall  *time.Timer
	err    error // sticky
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	if d.err != nil || len(p) == 0 {
		return 0, d.err
	}
	for {
		n, err := d.take(p)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			err = d.verify()
		}
		if d.err = d.resume(err); d.err != nil {
			d.drop()
			return 0, d.err
		}
	}
}

// take reads once. It returns io.EOF when all of the declared size has come, or
// the body ends.
func (d *download) take(p []byte) (int, error) {
	if left := d.img.SizeBytes - d.offset; d.img.SizeBytes >= 0 && int64(len(p)) > left {
		p = p[:max(left, 1)] // at the end one byte too many shows what is too long
	}
	d.stall.Reset(d.c.opts.Stall)
	n, err := d.body.Read(p)
	d.stall.Stop()
	if d.offset == d.img.SizeBytes && n > 0 {
		return 0, d.corrupt("longer than %d bytes", d.img.SizeBytes)
	}
	if d.offset == d.img.SizeBytes && err != nil {
		return 0, io.EOF // all is here, however the connection ended
	}
	d.offset += int64(n)
	if d.hash != nil {
		_, _ = d.hash.Write(p[:n]) // a hash does not fail
	}
	return n, err
}

// verify says whether the end of the body is the end of the image.
func (d *download) verify() error {
	switch {
	case d.img.SizeBytes >= 0 && d.offset < d.img.SizeBytes:
		return io.ErrUnexpectedEOF
	case d.hash != nil && hex.EncodeToString(d.hash.Sum(nil)) != d.want:
		return d.corrupt("the hash differs")
	}
	return io.EOF
}

func (d *download) corrupt(format string, args ...any) error {
	return errdefs.WithPublic(
		fmt.Errorf("read image %s: %s: %w", d.img.ID, fmt.Sprintf(format, args...), errdefs.ErrCorrupt),
		fmt.Sprintf("Image %s is unacceptable: its data does not match its checksum.", d.img.ID))
}

// resume connects again after err if that can help; otherwise it returns the
// error to report.
func (d *download) resume(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, errdefs.ErrCorrupt) {
		return err
	}
	d.c.log.Debug().Err(err).Str(logging.Image, d.img.ID).Int64("offset", d.offset).Msg("download broke off")
	d.drop()
	if d.ctx.Err() == nil && d.tries < d.c.opts.Tries {
		if !d.pause() {
			return fmt.Errorf("read image %s: %w", d.img.ID, d.ctx.Err())
		}
		return d.connect()
	}
	if d.ctx.Err() != nil {
		return fmt.Errorf("read image %s: %w", d.img.ID, d.ctx.Err())
	}
	return fmt.Errorf("read image %s: broke off at %d of %d bytes, %d tries: %w: %w",
		d.img.ID, d.offset, d.img.SizeBytes, d.tries, errdefs.ErrUnavailable, err)
}

// pause waits before the next try; false means that ctx has ended.
func (d *download) pause() bool {
	t := time.NewTimer(d.c.opts.Backoff << (d.tries - 1))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-d.ctx.Done():
		return false
	}
}

// connect asks for the rest of the image, as often as tries are left.
func (d *download) connect() error {
	for {
		d.tries++
		err := d.request()
		if err == nil {
			return nil
		}
		d.drop()
		if d.ctx.Err() != nil || !errors.Is(err, errdefs.ErrUnavailable) || d.tries >= d.c.opts.Tries || !d.pause() {
			return fmt.Errorf("read image %s: %w", d.img.ID, err)
		}
	}
}

func (d *download) request() error {
	ctx, cancel := context.WithCancelCause(d.ctx)
	d.cancel = cancel
	d.stall = time.AfterFunc(d.c.opts.Stall, func() { cancel(errStalled) })
	req := openstack.Request{Method: http.MethodGet, Path: d.path, Header: map[string]string{"Accept": "application/octet-stream"}}
	if d.offset > 0 {
		req.Header["Range"] = fmt.Sprintf("bytes=%d-", d.offset)
	}
	resp, err := d.c.rest.Open(ctx, d.auth, req) //nolint:bodyclose // drop closes it
	d.stall.Stop()
	if err != nil {
		if context.Cause(ctx) == errStalled { //nolint:errorlint // set above
			return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, errStalled)
		}
		return err
	}
	d.body = resp.Body
	return d.position(resp)
}

// position makes sure that the next byte of the body is that at offset.
func (d *download) position(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusNoContent:
		return errdefs.WithPublic(fmt.Errorf("no data: %w", errdefs.ErrInvalid), fmt.Sprintf("Image %s has no data.", d.img.ID))
	case http.StatusPartialContent:
		var first int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &first); err != nil || first != d.offset {
			return fmt.Errorf("asked for byte %d, got %q: %w", d.offset, resp.Header.Get("Content-Range"), errdefs.ErrCorrupt)
		}
		return nil
	}
	// The whole image, though a part was asked for: pass over what we have.
	d.stall.Reset(d.c.opts.Stall)
	defer d.stall.Stop()
	_, err := io.Copy(io.Discard, &ticking{io.LimitReader(d.body, d.offset), d})
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	return nil
}

// ticking keeps the stall timer from firing while bytes come.
type ticking struct {
	r io.Reader
	d *download
}

func (t *ticking) Read(p []byte) (int, error) {
	t.d.stall.Reset(t.d.c.opts.Stall)
	return t.r.Read(p)
}

// drop closes the connection.
func (d *download) drop() {
	if d.body != nil {
		_ = d.body.Close()
		d.body = nil
	}
	if d.cancel != nil {
		d.stall.Stop()
		d.cancel(context.Canceled)
		d.cancel = nil
	}
}

// Close drops the connection. It never says whether the image was good: the
// end of the stream does.
func (d *download) Close() error {
	d.drop()
	if d.err == nil {
		d.err = fmt.Errorf("read image %s: %w", d.img.ID, io.ErrClosedPipe)
	}
	return nil
}
