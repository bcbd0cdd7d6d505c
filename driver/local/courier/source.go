package courier

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Source is where an instance comes from.
type Source struct {
	// Address is HOST:PORT of the other host's server, Name the instance.
	Address, Name string
	Own           Key
	Peer          PublicKey
	// Patience is how long tries to go on may bring nothing.
	Patience time.Duration
	Log      zerolog.Logger
}

// The pauses between tries grow from the first to the last.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Open returns the stream called what. It goes on after a connection broke, and
// its end says that all of it is as it was sent. Its errors are
// errdefs.ErrNotFound and errdefs.ErrConflict of the offer,
// errdefs.ErrForbidden if one side does not know the other, errdefs.ErrCorrupt
// if what came is not what was sent, errdefs.ErrUnavailable when the patience is
// at an end. ctx ends it; close it in every case.
func (s Source) Open(ctx context.Context, what string) (io.ReadCloser, error) {
	tlsConfig, err := config(s.Own, s.Peer)
	if err != nil {
		return nil, err
	}
	tlsConfig.ServerName = s.Name
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 6,
	}}
	ctx, stop := context.WithCancel(ctx)
	return &fetch{
		Source: s, ctx: ctx, stop: stop, what: what, hash: sha256.New(),
		client: &http.Client{Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: tlsConfig, TLSHandshakeTimeout: 20 * time.Second,
			DisableKeepAlives: true, DisableCompression: true,
		}},
	}, nil
}

// fetch is one stream over any number of connections.
type fetch struct {
	Source
	ctx    context.Context //nolint:containedctx // of the reads, as io.Reader has it
	stop   context.CancelFunc
	what   string
	client *http.Client
	hash   hash.Hash
	n      int64

	resp *http.Response // nil between connections
	body *zstd.Decoder
	// pause is the next one, since when nothing came: zero while something does.
	pause time.Duration
	since time.Time
	end   error // what every further Read answers
}

// Read implements io.Reader.
func (f *fetch) Read(p []byte) (int, error) {
	for f.end == nil {
		n, err := f.read(p)
		if n > 0 {
			_, _ = f.hash.Write(p[:n]) // never fails
			f.n += int64(n)
			f.pause = 0
		}
		if errors.Is(err, io.EOF) {
			err = f.verify()
		}
		if err != nil {
			f.drop()
			f.judge(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, f.end
}

func (f *fetch) read(p []byte) (int, error) {
	if f.resp == nil {
		if err := f.connect(); err != nil {
			return 0, err
		}
	}
	return f.body.Read(p)
}

func (f *fetch) connect() error {
	u := url.URL{Scheme: "https", Host: f.Address, Path: "/v1/" + f.what, RawQuery: "from=" + strconv.FormatInt(f.n, 10)}
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalid, err)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.Join(statusError(resp.StatusCode), resp.Body.Close())
	}
	f.resp = resp
	f.body, err = zstd.NewReader(resp.Body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true))
	return err
}

func statusError(code int) error {
	class := errdefs.ErrInvalid
	switch {
	case code == http.StatusNotFound:
		class = errdefs.ErrNotFound
	case code == http.StatusForbidden:
		class = errdefs.ErrForbidden
	case code == http.StatusConflict:
		class = errdefs.ErrConflict
	case code >= 500:
		class = errdefs.ErrUnavailable
	}
	return fmt.Errorf("status %d: %w", code, class)
}

// verify judges a stream that has ended. nil means nothing is to be done again.
func (f *fetch) verify() error {
	// the trailers come with the end of the body, which the decoder need not reach
	if _, err := io.Copy(io.Discard, io.LimitReader(f.resp.Body, 1)); err != nil {
		return err
	}
	length, digest := f.resp.Trailer.Get(lengthTrailer), f.resp.Trailer.Get(digestTrailer)
	if length == "" || digest == "" {
		return io.ErrUnexpectedEOF
	}
	if length != strconv.FormatInt(f.n, 10) || digest != hex.EncodeToString(f.hash.Sum(nil)) {
		return fmt.Errorf("%d bytes came of %s: %w", f.n, length, errdefs.ErrCorrupt)
	}
	f.drop()
	f.end = io.EOF
	return nil
}

func (f *fetch) drop() {
	if f.body != nil {
		f.body.Close()
	}
	if f.resp != nil {
		_ = f.resp.Body.Close() // what it has to say has been read
	}
	f.resp, f.body = nil, nil
}

// judge ends the stream, or waits before it is gone on with.
func (f *fetch) judge(err error) {
	wrong := fmt.Errorf("fetch %s of %s from %s, byte %d: %w", f.what, f.Name, f.Address, f.n, err)
	switch {
	case f.ctx.Err() != nil:
		f.end = fmt.Errorf("%w: %w", f.ctx.Err(), wrong)
	case final(err):
		f.end = wrong
		if remote(err) {
			f.end = fmt.Errorf("%w: the other host does not know this one: %w", errdefs.ErrForbidden, wrong)
		}
	case f.pause == 0:
		f.pause, f.since = firstPause, time.Now()
	case time.Since(f.since) > f.Patience:
		f.end = fmt.Errorf("%w: %w", errdefs.ErrUnavailable, wrong)
	default:
		f.pause = min(2*f.pause, lastPause)
	}
	if f.end != nil {
		return
	}
	f.Log.Warn().Err(err).Str(logging.Instance, f.Name).Int64("at", f.n).Dur("pause", f.pause).Msg("the disk of a move is fetched on")
	timer := time.NewTimer(f.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.ctx.Done():
		f.end = fmt.Errorf("%w: %w", f.ctx.Err(), wrong)
	}
}

// final says that another try would end in the same way.
func final(err error) bool {
	for _, class := range []error{errdefs.ErrNotFound, errdefs.ErrConflict, errdefs.ErrForbidden, errdefs.ErrInvalid, errdefs.ErrCorrupt} {
		if errors.Is(err, class) {
			return true
		}
	}
	return remote(err)
}

// remote says that the other side has ended the handshake, which it does with who
// it does not know.
func remote(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// Close implements io.Closer.
func (f *fetch) Close() error {
	f.stop()
	f.drop()
	f.client.CloseIdleConnections()
	if f.end == nil {
		f.end = errClosed
	}
	return nil
}

var errClosed = fmt.Errorf("the stream is closed: %w", errdefs.ErrAborted)
