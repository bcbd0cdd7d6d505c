package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Client speaks to a Server. Methods may be called from any goroutine. Errors
// have the class that they had in the server; while nobody serves the socket
// they are errdefs.ErrUnavailable.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the socket; nothing is sent yet.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableCompression: true, MaxIdleConnsPerHost: 16,
	}}
	return c
}

// Close closes idle connections. The client may be used further.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errdefs.ErrUnavailable, conn.Close())
	}
	return unixConn, nil
}

// base is the address of a socket's server; the name says nothing.
const base = "http://gantry/v1"

// path is a request's path below base, of escaped parts.
func path(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/")
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

// request makes a request with a document, nil for none.
func request(ctx context.Context, method, path string, query url.Values, doc any) (*http.Request, error) {
	target := base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var body io.Reader
	if doc != nil {
		data, err := json.Marshal(doc)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalid, err)
	}
	return req, nil
}

// send sends a request; the caller closes the body of a good response.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	res, err := c.http.Do(req)
	if err != nil {
		if req.Context().Err() != nil {
			return nil, context.Cause(req.Context())
		}
		if !errors.Is(err, errdefs.ErrUnavailable) {
			err = fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
		}
		return nil, err
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxFailure))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	return nil, parseFailure(res.StatusCode, data)
}

// maxDocument bounds what a client takes for one answer.
const maxDocument = 256 << 20

// call sends a request and reads the answer into out, nil for none.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, doc, out any) error {
	req, err := request(ctx, method, path, query, doc)
	if err != nil {
		return err
	}
	return c.answer(req, out)
}

func (c *Client) answer(req *http.Request, out any) error {
	res, err := c.send(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxDocument)).Decode(out); err != nil {
		if req.Context().Err() != nil {
			return context.Cause(req.Context())
		}
		return fmt.Errorf("read answer: %w: %w", errdefs.ErrUnavailable, err)
	}
	return nil
}

// each reads documents, one a line, and calls fn with each until the stream
// ends (nil), fn fails or ctx ends.
func each[T any](c *Client, req *http.Request, fn func(T) error) error {
	res, err := c.send(req) //nolint:bodyclose // eachOf closes it
	if err != nil {
		return err
	}
	return eachOf(res, req, fn)
}

func eachOf[T any](res *http.Response, req *http.Request, fn func(T) error) error {
	defer res.Body.Close()
	d := json.NewDecoder(res.Body)
	for {
		var doc T
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if req.Context().Err() != nil {
				return context.Cause(req.Context())
			}
			return fmt.Errorf("read stream: %w: %w", errdefs.ErrUnavailable, err)
		}
		if err := fn(doc); err != nil {
			return err
		}
	}
}

// bytesBody is a stream of bytes whose end says whether it is whole.
type bytesBody struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // tells a cancelled read from a lost server
	res *http.Response
}

// Read implements io.Reader.
func (b *bytesBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		if text := b.res.Trailer.Get(failureTrailer); text != "" {
			var f Failure
			if json.Unmarshal([]byte(text), &f) != nil {
				f = Failure{Code: "corrupt", Message: "the stream has ended before its end"}
			}
			err = f.err()
		}
	case b.ctx.Err() != nil:
		err = context.Cause(b.ctx)
	default:
		err = fmt.Errorf("read stream: %w: %w", errdefs.ErrUnavailable, err)
	}
	return n, err
}

func (c *Client) bytes(req *http.Request) (io.ReadCloser, error) {
	res, err := c.send(req) //nolint:bodyclose // the caller closes it
	if err != nil {
		return nil, err
	}
	return &bytesBody{ReadCloser: res.Body, ctx: req.Context(), res: res}, nil
}
