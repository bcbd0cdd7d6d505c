package devcloud

import (
	"context"
	"errors"
	"net/http"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
)

// Options of a Cloud.
type Options struct {
	// State is the directory of databases and images.
	State string
	// URL is where Handler is served, without a slash at its end.
	URL string
	// Host is the name of the compute service that has this machine.
	Host string
	// Transport reaches the compute service. Close closes it.
	Transport messaging.Transport
	Log       zerolog.Logger
}

// Cloud is an embedded cloud: all services, joined.
type Cloud struct {
	o         Options
	passwords passwords
}

// Open opens the state, which is made when it is not there.
func Open(_ context.Context, o Options) (*Cloud, error) {
	p, err := loadPasswords(o.State)
	if err != nil {
		return nil, err
	}
	return &Cloud{o: o, passwords: p}, nil
}

// Close closes the state, after Run has returned.
func (c *Cloud) Close() error { return c.o.Transport.Close() }

// ServicePassword is the password of the service users nova, neutron, glance and
// placement.
func (c *Cloud) ServicePassword() string { return c.passwords.Service }

// Handler serves all APIs, each below its name: /identity, /image, /compute,
// /network, /placement.
func (c *Cloud) Handler() http.Handler { return http.NewServeMux() }

// Run works until ctx ends.
func (c *Cloud) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// AwaitHost returns when a compute service of that host is up.
func (c *Cloud) AwaitHost(ctx context.Context, _ string) error {
	<-ctx.Done()
	return errors.Join(ctx.Err())
}
