package devcloud

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute"
	"github.com/gantry-project/gantry/internal/devcloud/conductor"
	"github.com/gantry-project/gantry/internal/devcloud/consoles"
	"github.com/gantry-project/gantry/internal/devcloud/identity"
	"github.com/gantry-project/gantry/internal/devcloud/images"
	"github.com/gantry-project/gantry/internal/devcloud/metadata"
	"github.com/gantry-project/gantry/internal/devcloud/network"
	"github.com/gantry-project/gantry/internal/devcloud/placement"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/devcloud/scheduler"
)

// Options of a Cloud.
type Options struct {
	// State is the directory of databases and images.
	State string
	// URL is where Handler is served, without a slash at its end.
	URL string
	// CAFile is what clients verify an https URL by, an absolute path; empty is
	// what they trust anyway.
	CAFile string
	// Host is the name of the compute service that has this machine.
	Host string
	// Busybox is a static busybox, which becomes the image of that name in a new
	// cloud.
	Busybox string
	// KeepDeleted is how long the rows of deleted instances are kept for lists
	// that ask for them; 0 is for ever.
	KeepDeleted time.Duration
	// Fabric makes networks on this host.
	Fabric network.Fabric
	// Transport reaches the compute service. Close closes it.
	Transport messaging.Transport
	Log       zerolog.Logger
}

// Cloud is an embedded cloud: all services, joined.
type Cloud struct {
	o         Options
	passwords passwords
	mux       *http.ServeMux
	identity  *identity.Service
	placement *placement.Service
	images    *images.Service
	network   *network.Service
	cell      *cell.Store
	conductor *conductor.Conductor
	rpc       *messaging.Client
	compute   *compute.Service
	metadata  *metadata.Proxy
	names     *hostnames
	closes    []func() error
	heard     chan struct{} // closed when compute services are heard

	mu    sync.Mutex
	token string    // +checklocks:mu; of a service user
	renew time.Time // +checklocks:mu
}

// Open opens the state, which is made when it is not there, and joins the
// services. Nothing is served before the caller serves Handler and calls Run.
func Open(ctx context.Context, o Options) (_ *Cloud, err error) {
	c := &Cloud{o: o, mux: http.NewServeMux(), closes: []func() error{o.Transport.Close}, heard: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.passwords, err = loadPasswords(o.State); err != nil {
		return nil, err
	}
	if err := c.openIdentity(ctx); err != nil {
		return nil, err
	}
	if c.placement, err = placement.New(ctx, placement.Options{Path: c.path("placement.db"), Auth: c.identity, Log: o.Log}); err != nil {
		return nil, err
	}
	c.closes = append(c.closes, c.placement.Close)
	c.mount("/placement", c.placement.Handler())
	if c.images, err = images.New(ctx, images.Options{Path: c.path("glance.db"), Dir: c.path("images"), Auth: c.identity, Log: o.Log}); err != nil {
		return nil, err
	}
	c.closes = append(c.closes, c.images.Close)
	c.mount("/image", c.images.Handler())
	told := &events{}
	c.network, err = network.New(ctx, network.Options{
		Path: c.path("neutron.db"), Host: o.Host, Auth: c.identity, Fabric: o.Fabric, Events: told, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	c.closes = append(c.closes, c.network.Close)
	c.mount("/network", c.network.Handler())
	nets := networks{inside{c.mux}, c.serviceToken}
	if err := c.openCompute(ctx, nets); err != nil {
		return nil, err
	}
	if err := c.openMetadata(nets); err != nil {
		return nil, err
	}
	told.compute = c.compute
	if err := consoles.Register(c.mux, consoles.Options{Find: c.console, Log: o.Log}); err != nil {
		return nil, err
	}
	return c, errors.Join(c.furnish(ctx), c.writeEnv())
}

func (c *Cloud) path(name string) string { return filepath.Join(c.o.State, name) }

func (c *Cloud) mount(prefix string, h http.Handler) {
	h = rest.Mount(prefix, h)
	c.mux.Handle(prefix, h)
	c.mux.Handle(prefix+"/", h)
}

// openIdentity opens the identity service with the users that others need.
func (c *Cloud) openIdentity(ctx context.Context) (err error) {
	if c.identity, err = identity.New(ctx, identity.Options{Path: c.path("identity.db"), URL: c.o.URL + "/identity/v3", Log: c.o.Log}); err != nil {
		return err
	}
	c.closes = append(c.closes, c.identity.Close)
	c.mount("/identity", c.identity.Handler())
	b := identity.BootstrapRequest{
		Region: Region, Projects: []string{"admin", "demo", "service"},
		Users: []identity.BootstrapUser{
			{Name: "admin", Password: c.passwords.Admin, Random: true, Project: "admin", Roles: map[string][]string{"admin": {"admin"}, "": {"admin"}}},
			{Name: "demo", Password: c.passwords.Demo, Random: true, Project: "demo", Roles: map[string][]string{"demo": {"member"}}},
		},
	}
	for _, name := range []string{"nova", "neutron", "glance", "placement"} {
		b.Users = append(b.Users, identity.BootstrapUser{
			Name: name, Password: c.passwords.Service, Generated: true, Project: "service", Roles: map[string][]string{"service": {"admin", "service"}},
		})
	}
	for _, s := range []struct{ kind, name, path string }{
		{"identity", "keystone", "/identity/v3"},
		{"image", "glance", "/image"},
		{"compute", "nova", "/compute/v2.1"},
		{"network", "neutron", "/network"},
		{"placement", "placement", "/placement"},
	} {
		b.Services = append(b.Services, identity.BootstrapService{Type: s.kind, Name: s.name, URL: c.o.URL + s.path})
	}
	_, err = c.identity.Bootstrap(ctx, b)
	return err
}

// openCompute opens what Nova is: the cell, scheduler, conductor and API.
func (c *Cloud) openCompute(ctx context.Context, nets networks) (err error) {
	if c.cell, err = cell.Open(ctx, c.path("nova.db")); err != nil {
		return err
	}
	c.closes = append(c.closes, c.cell.Close)
	own, err := compute.Open(ctx, c.path("nova_api.db"))
	if err != nil {
		return err
	}
	c.closes = append(c.closes, own.Close)
	chooser := scheduler.New(scheduler.Options{Placement: c.placement, Nodes: c.cell, Groups: own, Zones: own, Log: c.o.Log})
	c.conductor, err = conductor.New(conductor.Options{
		Transport: c.o.Transport, Host: c.o.Host, Store: c.cell, Scheduler: chooser, Placement: c.placement,
		Groups: own, Networks: nets, Log: c.o.Log,
	})
	if err != nil {
		return err
	}
	c.rpc = messaging.NewClient(c.o.Transport, messaging.ClientOptions{Log: c.o.Log})
	c.compute = compute.New(compute.Options{
		Store: own, Auth: c.identity, Cell: c.cell, Tasks: c.conductor, RPC: c.rpc,
		Images: pictures{nets.inside}, Networks: nets, Placement: c.placement, Identity: projects{nets.inside, c.serviceToken},
		ImagesURL: c.o.URL + "/image", Log: c.o.Log,
	})
	c.mount("/compute", c.compute.Handler())
	return nil
}

// openMetadata joins the metadata service and its proxy, by a secret that no
// other process needs.
func (c *Cloud) openMetadata(nets networks) error {
	secret := []byte(rand.Text())
	service, err := metadata.New(metadata.Options{Cell: c.cell, Groups: nets, Secret: secret, Log: c.o.Log})
	if err != nil {
		return err
	}
	c.metadata = &metadata.Proxy{Resolver: c.network, Secret: secret, Next: service, Log: c.o.Log}
	c.names = &hostnames{cell: c.cell, known: map[string]remembered{}}
	return nil
}

// ServeMetadata answers what a guest asks at 169.254.169.254, through a router
// or, if that is "", in a network. RemoteAddr is that of the guest.
func (c *Cloud) ServeMetadata(router, network string, w http.ResponseWriter, r *http.Request) {
	if router == "" {
		c.metadata.ServeIn(network, w, r)
		return
	}
	c.metadata.ServeBehind(router, w, r)
}

// LeaseAt says what the guest with a MAC is told that asks by DHCP where its
// network is served, by the port that serves it; errdefs.ErrNotFound: nothing.
func (c *Cloud) LeaseAt(ctx context.Context, port, mac string) (network.Lease, error) {
	return c.network.LeaseAt(ctx, port, mac)
}

// Lease6At is LeaseAt for DHCPv6.
func (c *Cloud) Lease6At(ctx context.Context, port, mac string) (network.Lease6, error) {
	return c.network.Lease6At(ctx, port, mac)
}

// Names are the hosts of a network; those that are instances with their names.
func (c *Cloud) Names(ctx context.Context, networkID string) []Named {
	return c.names.of(ctx, c.network.Hosts(ctx, networkID))
}

// serviceToken returns a token of a service user that is good for some minutes
// more.
func (c *Cloud) serviceToken(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.renew) {
		return c.token, nil
	}
	token, err := inside{c.mux}.login(ctx, "nova", c.passwords.Service, "service")
	if err != nil {
		return "", fmt.Errorf("log in as a service: %w", err)
	}
	c.token, c.renew = token, time.Now().Add(tokenUse)
	return token, nil
}

// tokenUse is how long a service token is used: far less than it lives.
const tokenUse = time.Hour

// Close closes the state, after Run has returned.
func (c *Cloud) Close() error {
	var errs []error
	for i := len(c.closes) - 1; i >= 0; i-- {
		errs = append(errs, c.closes[i]())
	}
	return errors.Join(errs...)
}

// ServicePassword is the password of the service users nova, neutron, glance and
// placement.
func (c *Cloud) ServicePassword() string { return c.passwords.Service }

// Handler serves all APIs, each below its name: /identity, /image, /compute,
// /network, /placement.
func (c *Cloud) Handler() http.Handler { return c.mux }

// ending is what running tasks get when the cloud is asked to stop.
const ending = 10 * time.Second

// Heard is closed when Run hears compute services: what they call earlier is
// lost, as with a broker that has no queue for it.
func (c *Cloud) Heard() <-chan struct{} { return c.heard }

// Run works until ctx ends. Once.
func (c *Cloud) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return c.network.Run(running) })
	group.Go(func() error { return c.housekeeping(running) })
	group.Go(func() error { return c.conductor.Serve(running, func() { close(c.heard) }) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // asked to stop
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), ending)
	defer cancel()
	return errors.Join(err, c.conductor.Close(late), c.rpc.Close(late))
}

// purgePeriod is how often deleted instances are looked through.
const purgePeriod = time.Hour

// housekeeping prepares the first list and then removes what has been deleted
// long ago, until ctx ends. That it cannot is logged and no more.
func (c *Cloud) housekeeping(ctx context.Context) error {
	select {
	case <-c.heard: // first of all the cloud is to be ready
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := c.cell.Prime(ctx); err != nil {
		c.o.Log.Warn().Err(err).Msg("the first list of instances will be slow")
	}
	tick := time.NewTicker(purgePeriod)
	defer tick.Stop()
	for {
		if c.o.KeepDeleted > 0 {
			n, err := c.cell.Purge(ctx, time.Now().Add(-c.o.KeepDeleted))
			if err != nil || n > 0 {
				c.o.Log.Info().Err(err).Int64("instances", n).Msg("what was deleted long ago is removed")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AwaitHost returns when a compute service of that host is up and has room in
// placement, so that an instance can be made there; or when ctx ends.
func (c *Cloud) AwaitHost(ctx context.Context, host string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		up, err := c.usable(ctx, host)
		if err == nil && up {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("await host %s: %w", host, ctx.Err()), err)
		case <-tick.C:
		}
	}
}

func (c *Cloud) usable(ctx context.Context, host string) (bool, error) {
	services, err := c.cell.Services(ctx, cell.ServiceQuery{Host: host, Binary: "nova-compute"})
	if err != nil || len(services) == 0 || !cell.Up(services[0], time.Now()) {
		return false, err
	}
	found, err := c.placement.Candidates(ctx, placement.Request{Resources: map[string]int64{"VCPU": 1}, Limit: 1})
	return len(found) > 0, err
}
