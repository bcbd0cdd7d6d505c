package openstack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// expiryMargin is how long before its end a token is replaced.
const expiryMargin = 60 * time.Second

const userAgent = "gantry"

// Session is one set of credentials and the token that they give. Safe for
// concurrent use.
type Session struct {
	opts Options
	http *http.Client

	mu     sync.Mutex
	cred   *credential // guarded by mu; nil before the first use
	flight *flight     // guarded by mu; the authentication under way
}

type credential struct {
	token   string
	expires time.Time
	catalog []tokens.CatalogEntry
}

// flight is one authentication that any number of callers wait for.
type flight struct {
	done chan struct{}
	cred *credential
	err  error
}

// NewSession checks the options and reads the certificates; it does not talk to
// Keystone. Sessions with the same shared use one set of connections; nil gives
// the session its own. Errors are errdefs.ErrInvalid.
func NewSession(o Options, shared *Transports) (*Session, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	if shared == nil {
		shared = &Transports{}
	}
	base, err := shared.get(o.TLS, o.Timeout)
	if err != nil {
		return nil, err
	}
	return &Session{opts: o, http: &http.Client{
		Transport: &retrier{base: base, retries: o.ConnectRetries, backoff: firstBackoff},
		// A redirect is an error: the token belongs to the configured endpoint only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Token returns a token that is valid for at least a minute, authenticating if
// need be; many callers at a time cause one authentication. Wrong credentials
// are errdefs.ErrForbidden, an absent Keystone is errdefs.ErrUnavailable.
func (s *Session) Token(ctx context.Context) (string, error) {
	c, err := s.credential(ctx)
	if err != nil {
		return "", err
	}
	return c.token, nil
}

func (s *Session) credential(ctx context.Context) (*credential, error) {
	if s.opts.AuthType == "none" {
		return &credential{}, nil
	}
	s.mu.Lock()
	if c := s.cred; c != nil && time.Until(c.expires) > expiryMargin {
		s.mu.Unlock()
		return c, nil
	}
	f := s.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flight = f
		// The work outlives the caller who began it: others may wait for it.
		go s.fly(context.WithoutCancel(ctx), f)
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.cred, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("authenticate at keystone: %w", ctx.Err())
	}
}

func (s *Session) fly(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, s.callLimit())
	defer cancel()
	f.cred, f.err = s.authenticate(ctx)
	s.mu.Lock()
	s.flight = nil
	if f.err == nil {
		s.cred = f.cred
	}
	s.mu.Unlock()
	close(f.done)
}

func (s *Session) authenticate(ctx context.Context) (*credential, error) {
	ident := &gophercloud.ServiceClient{
		ProviderClient: s.provider(""),
		Endpoint:       unversioned(s.opts.AuthURL) + "/v3/",
		Type:           "identity",
	}
	res := tokens.Create(ctx, ident, s.opts.credentials())
	if res.Err != nil {
		return nil, Classify(ctx, "authenticate at keystone", res.Err)
	}
	tok, err := res.ExtractToken()
	if err != nil {
		return nil, Classify(ctx, "read token", err)
	}
	cat, err := res.ExtractServiceCatalog()
	if err != nil {
		return nil, Classify(ctx, "read catalog", err)
	}
	if tok.ID == "" {
		return nil, Classify(ctx, "read token", errors.New("keystone sent none"))
	}
	return &credential{token: tok.ID, expires: tok.ExpiresAt, catalog: cat.Entries}, nil
}

// forget drops the token, so that the next request authenticates anew.
func (s *Session) forget(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cred != nil && s.cred.token == token {
		s.cred = nil
	}
}

// callLimit bounds one call with all its tries.
func (s *Session) callLimit() time.Duration {
	return time.Duration(s.opts.ConnectRetries+1) * (s.opts.Timeout + maxBackoff)
}

func (s *Session) provider(token string) *gophercloud.ProviderClient {
	p := &gophercloud.ProviderClient{HTTPClient: *s.http, TokenID: token}
	p.UserAgent.Prepend(userAgent)
	return p
}

// endpoint finds the base address of a service, without version.
func (s *Session) endpoint(c *credential, serviceType string) (string, error) {
	if s.opts.EndpointOverride != "" {
		return unversioned(s.opts.EndpointOverride), nil
	}
	for _, iface := range s.opts.Interfaces {
		iface = strings.TrimSuffix(iface, "URL")
		for _, entry := range c.catalog {
			if entry.Type != serviceType {
				continue
			}
			for _, e := range entry.Endpoints {
				region := s.opts.Region == "" || e.Region == s.opts.Region || e.RegionID == s.opts.Region
				if e.Interface == iface && region {
					return unversioned(e.URL), nil
				}
			}
		}
	}
	return "", fmt.Errorf("no endpoint of type %s, interfaces %s, region %q in the catalog: %w",
		serviceType, strings.Join(s.opts.Interfaces, ","), s.opts.Region, errdefs.ErrUnavailable)
}

// unversioned cuts the slash and a version such as v2.0 from the end of an URL.
func unversioned(u string) string {
	u = strings.TrimRight(u, "/")
	i := strings.LastIndexByte(u, '/')
	last := u[i+1:]
	if len(last) > 1 && last[0] == 'v' && strings.Trim(last[1:], "0123456789.") == "" {
		u = strings.TrimRight(u[:i], "/")
	}
	return u
}
