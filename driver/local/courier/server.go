package courier

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Offer is what one instance's other host may have.
type Offer struct {
	Own  Key
	Peer PublicKey
	// Open opens the stream called what, errdefs.ErrNotFound if there is none,
	// errdefs.ErrConflict if it cannot be had now. Each time it is the same.
	Open func(ctx context.Context, what string) (io.ReadCloser, error)
}

// Server gives what is offered to who it is offered to.
type Server struct {
	offer func(ctx context.Context, name string) (Offer, error)
	log   zerolog.Logger
}

// NewServer returns a server of the offers that offer finds by name, for each
// request anew; errdefs.ErrNotFound says that there is none.
func NewServer(offer func(ctx context.Context, name string) (Offer, error), log zerolog.Logger) *Server {
	return &Server{offer: offer, log: log}
}

// Serve answers until ctx ends, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    stdlog.New(debugWriter{s.log}, "", 0),
	}
	end := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer end()
	err := server.Serve(tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			o, err := s.offer(hello.Context(), hello.ServerName)
			if err != nil {
				return nil, err
			}
			return config(o.Own, o.Peer)
		},
	}))
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve moves: %w", err)
}

// debugWriter takes what net/http says of connections: strangers cause it.
type debugWriter struct{ log zerolog.Logger }

// Write implements io.Writer.
func (w debugWriter) Write(line []byte) (int, error) {
	w.log.Debug().Str("library", string(line)).Msg("connection of a move")
	return len(line), nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	name := r.TLS.ServerName
	log := s.log.With().Str(logging.Instance, name).Str("what", r.PathValue("what")).Logger()
	o, err := s.offer(r.Context(), name)
	if err == nil { // another move may have begun since the connection was made
		err = o.Peer.only(*r.TLS)
	}
	var from int64
	what := ""
	if err == nil {
		what, from, err = request(r)
	}
	if err == nil {
		err = s.send(r.Context(), o, what, from, w)
	}
	if err == nil {
		return
	}
	log.Warn().Err(err).Int64("from", from).Msg("disk of a move not sent")
	if cut, ok := errors.AsType[*cutError](err); ok && cut.sent {
		panic(http.ErrAbortHandler) // net/http's way to break the connection
	}
	http.Error(w, "", status(err))
}

// request reads what is wanted.
func request(r *http.Request) (what string, from int64, err error) {
	const prefix = "/v1/"
	if r.Method != http.MethodGet || len(r.URL.Path) <= len(prefix) || r.URL.Path[:len(prefix)] != prefix {
		return "", 0, fmt.Errorf("%.16s %.64q: %w", r.Method, r.URL.Path, errdefs.ErrInvalid)
	}
	if text := r.URL.Query().Get("from"); text != "" {
		from, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil || from < 0 {
		return "", 0, fmt.Errorf("from: %w", errdefs.ErrInvalid)
	}
	return r.URL.Path[len(prefix):], from, nil
}

func status(err error) int {
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, errdefs.ErrForbidden):
		return http.StatusForbidden
	case errors.Is(err, errdefs.ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, errdefs.ErrConflict), errors.Is(err, errdefs.ErrAborted):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

// cutError is one of a stream that has begun.
type cutError struct {
	error
	sent bool
}

// Unwrap is for errors.Is.
func (e *cutError) Unwrap() error { return e.error }

// send streams from byte from on.
func (s *Server) send(ctx context.Context, o Offer, what string, from int64, w http.ResponseWriter) (err error) {
	stream, err := o.Open(ctx, what)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // read to its end, or not wanted any more
	w.Header().Set("Content-Type", "application/zstd")
	w.Header().Set("Trailer", lengthTrailer+", "+digestTrailer)
	out := &counted{w: w}
	z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
	if err != nil {
		return err
	}
	sum := &summed{hash: sha256.New(), w: z, skip: from}
	if _, err = io.Copy(sum, stream); err == nil && sum.n < from {
		err = fmt.Errorf("from byte %d of %d: %w", from, sum.n, errdefs.ErrInvalid)
	}
	if err != nil {
		return &cutError{err, out.n > 0}
	}
	if err := z.Close(); err != nil {
		return &cutError{err, true}
	}
	w.Header().Set(lengthTrailer, strconv.FormatInt(sum.n, 10))
	w.Header().Set(digestTrailer, hex.EncodeToString(sum.hash.Sum(nil)))
	return nil
}

// window bounds what the other side has to keep.
const window = 1 << 20

// counted counts what is written.
type counted struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// summed sums up a stream and passes on what follows the first skip bytes.
type summed struct {
	hash hash.Hash
	w    io.Writer
	n    int64
	skip int64
}

// Write implements io.Writer.
func (s *summed) Write(p []byte) (int, error) {
	_, _ = s.hash.Write(p) // never fails
	rest := p[min(int64(len(p)), max(0, s.skip-s.n)):]
	s.n += int64(len(p))
	if len(rest) > 0 {
		if _, err := s.w.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
