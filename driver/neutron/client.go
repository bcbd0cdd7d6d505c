package neutron

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/openstack"
)

// Options are the settings of [neutron] that concern ports.
type Options struct {
	// OVSBridge is the integration bridge where Neutron names none. Default br-int.
	OVSBridge string
	// ExtensionTTL is how long the list of extensions is kept. Default 600 s.
	ExtensionTTL time.Duration
	// UserCreatesPorts makes every port with the user's token and binds it in a
	// second call, as stock Nova does.
	UserCreatesPorts bool
}

// REST is the slice of openstack.Client that is used here.
type REST interface {
	Do(ctx context.Context, auth openstack.UserAuth, req openstack.Request) error
}

// Client allocates ports. Safe for concurrent use. Requests that change
// something are not cut short by a cancelled context: their outcome must be
// known, and the service's timeout bounds them.
type Client struct {
	rest REST
	opts Options
	log  zerolog.Logger

	mu         sync.Mutex
	extensions map[string]bool // guarded by mu; replaced, never changed
	readAt     time.Time       // guarded by mu
}

// New returns a client for the network service behind rest. It sends nothing.
func New(rest REST, opts Options, log zerolog.Logger) *Client {
	if opts.OVSBridge == "" {
		opts.OVSBridge = "br-int"
	}
	if opts.ExtensionTTL <= 0 {
		opts.ExtensionTTL = 600 * time.Second
	}
	return &Client{rest: rest, opts: opts, log: log}
}

// Extension aliases that matter here.
const (
	extDNS       = "dns-integration"
	extAutoAlloc = "auto-allocated-topology"
)

// loadExtensions returns the set of aliases, from the cache while it is fresh.
func (c *Client) loadExtensions(ctx context.Context, auth openstack.UserAuth) (map[string]bool, error) {
	c.mu.Lock()
	set, fresh := c.extensions, time.Since(c.readAt) < c.opts.ExtensionTTL
	c.mu.Unlock()
	if set != nil && fresh {
		return set, nil
	}
	var out struct {
		Extensions []struct{ Alias string }
	}
	if err := c.get(ctx, auth.AsService(), "/v2.0/extensions", nil, &out); err != nil {
		return nil, err
	}
	set = make(map[string]bool, len(out.Extensions))
	for _, e := range out.Extensions {
		set[e.Alias] = true
	}
	c.mu.Lock()
	c.extensions, c.readAt = set, time.Now()
	c.mu.Unlock()
	return maps.Clone(set), nil
}

func (c *Client) get(ctx context.Context, auth openstack.UserAuth, path string, q url.Values, into any) error {
	return c.rest.Do(ctx, auth, openstack.Request{Method: http.MethodGet, Path: path, Query: q, Into: into})
}

func (c *Client) listPorts(ctx context.Context, auth openstack.UserAuth, q url.Values) ([]port, error) {
	var out struct{ Ports []port }
	err := c.get(ctx, auth, "/v2.0/ports", q, &out)
	return out.Ports, err
}

func (c *Client) listNetworks(ctx context.Context, auth openstack.UserAuth, q url.Values) ([]network, error) {
	var out struct{ Networks []network }
	err := c.get(ctx, auth, "/v2.0/networks", q, &out)
	return out.Networks, err
}

func (c *Client) showPort(ctx context.Context, auth openstack.UserAuth, id string) (port, error) {
	var out struct{ Port port }
	err := c.get(ctx, auth, "/v2.0/ports/"+url.PathEscape(id), nil, &out)
	return out.Port, err
}

func (c *Client) createPort(ctx context.Context, auth openstack.UserAuth, body map[string]any) (port, error) {
	var out struct{ Port port }
	err := c.rest.Do(context.WithoutCancel(ctx), auth, openstack.Request{
		Method: http.MethodPost, Path: "/v2.0/ports", Body: map[string]any{"port": body}, Into: &out,
	})
	return out.Port, err
}

func (c *Client) updatePort(ctx context.Context, auth openstack.UserAuth, id string, body map[string]any) (port, error) {
	var out struct{ Port port }
	err := c.rest.Do(context.WithoutCancel(ctx), auth, openstack.Request{
		Method: http.MethodPut, Path: "/v2.0/ports/" + url.PathEscape(id), Body: map[string]any{"port": body}, Into: &out,
	})
	return out.Port, err
}

func (c *Client) deletePort(ctx context.Context, auth openstack.UserAuth, id string) error {
	return c.rest.Do(context.WithoutCancel(ctx), auth, openstack.Request{
		Method: http.MethodDelete, Path: "/v2.0/ports/" + url.PathEscape(id),
	})
}
