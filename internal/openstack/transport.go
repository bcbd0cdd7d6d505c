package openstack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Limits of every connection. An idle connection is dropped before the usual
// servers drop it (Apache after 5 s): a request that is not repeatable must not
// meet a connection that is just being closed, and idle memory stays small.
const (
	dialTimeout   = 10 * time.Second
	idleTimeout   = 4 * time.Second
	idlePerHost   = 8
	maxErrorBody  = 64 << 10
	maxJSONBody   = 64 << 20
	firstBackoff  = 200 * time.Millisecond
	maxBackoff    = 8 * time.Second
	maxHeaderSize = 256 << 10
)

// Transports shares connections between the sessions that trust and present
// the same certificates. The zero value is ready; safe for concurrent use.
type Transports struct {
	mu sync.Mutex
	m  map[transportKey]*http.Transport // guarded by mu
}

type transportKey struct {
	TLS
	timeout time.Duration
}

// get returns the transport for t, reading its files the first time.
func (p *Transports) get(t TLS, timeout time.Duration) (*http.Transport, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := transportKey{t, timeout}
	if tr := p.m[key]; tr != nil {
		return tr, nil
	}
	conf, err := t.config()
	if err != nil {
		return nil, err
	}
	tr := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: min(timeout, dialTimeout), KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    min(timeout, dialTimeout),
		ResponseHeaderTimeout:  timeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    idlePerHost,
		MaxResponseHeaderBytes: maxHeaderSize,
		DisableCompression:     true,
	}
	if p.m == nil {
		p.m = make(map[transportKey]*http.Transport)
	}
	p.m[key] = tr
	return tr, nil
}

// CloseIdle drops all connections that no request uses.
func (p *Transports) CloseIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, tr := range p.m {
		tr.CloseIdleConnections()
	}
}

func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.Insecure} // the operator's own option
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read cafile: %w: %w", errdefs.ErrInvalid, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read cafile %s: no certificate in it: %w", t.CAFile, errdefs.ErrInvalid)
		}
	}
	if t.CertFile != "" {
		key := t.KeyFile
		if key == "" {
			key = t.CertFile
		}
		cert, err := tls.LoadX509KeyPair(t.CertFile, key)
		if err != nil {
			return nil, fmt.Errorf("read certfile: %w: %w", errdefs.ErrInvalid, err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// retrier tries a request again when that cannot do its work twice: after a
// failed dial always, after a broken connection or a 502, 503 or 504 only for
// idempotent methods, and never when the body cannot be sent again.
type retrier struct {
	base    http.RoundTripper
	retries int
	backoff time.Duration
}

// RoundTrip implements http.RoundTripper.
func (r *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, err := r.base.RoundTrip(req)
		if try >= r.retries || !again(req, resp, err) {
			if resp != nil && resp.StatusCode >= 300 {
				resp.Body = limited{io.LimitReader(resp.Body, maxErrorBody), resp.Body}
			}
			return resp, err
		}
		if resp != nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
			_ = resp.Body.Close()
		}
		if werr := wait(req.Context(), r.backoff<<try); werr != nil {
			return nil, werr
		}
		if req.GetBody != nil {
			body, berr := req.GetBody()
			if berr != nil {
				return nil, berr
			}
			req = req.Clone(req.Context())
			req.Body = body
		}
	}
}

func again(req *http.Request, resp *http.Response, err error) bool {
	if req.Context().Err() != nil || (req.Body != nil && req.Body != http.NoBody && req.GetBody == nil) {
		return false
	}
	if err != nil {
		op, ok := errors.AsType[*net.OpError](err)
		return (ok && op.Op == "dial") || idempotent(req.Method)
	}
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return idempotent(req.Method)
	}
	return false
}

func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return true
	}
	return false
}

// wait sleeps for d, at most maxBackoff, with some spread, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	d = min(d, maxBackoff)
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type limited struct {
	io.Reader
	io.Closer
}
