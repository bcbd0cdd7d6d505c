package metadata

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Resolver knows who has an address.
type Resolver interface {
	// InstanceBehind returns the instance, and its project, that has the
	// address in a network of the router; errdefs.ErrNotFound if none has.
	InstanceBehind(ctx context.Context, router string, address netip.Addr) (instance, project string, err error)
	// InstanceIn is InstanceBehind for a network.
	InstanceIn(ctx context.Context, network string, address netip.Addr) (instance, project string, err error)
}

// Proxy tells a Service which instance asks, as Neutron's metadata agent does.
type Proxy struct {
	Resolver Resolver
	// Secret is shared with the service.
	Secret []byte
	// Next is the service.
	Next http.Handler
	Log  zerolog.Logger
}

// patience bounds how long an answer may take to make.
const patience = 10 * time.Second

// maxBody bounds what a guest may send: only passwords are taken.
const maxBody = 64 << 10

// ServeBehind answers a request that came through a router; its RemoteAddr is
// that of the guest. What the guest says of itself in headers is not passed on.
// An address that no instance has is 404.
func (p *Proxy) ServeBehind(router string, w http.ResponseWriter, r *http.Request) {
	p.serve("router "+router, w, r, func(ctx context.Context, a netip.Addr) (string, string, error) {
		return p.Resolver.InstanceBehind(ctx, router, a)
	})
}

// ServeIn is ServeBehind for a request that was heard in a network.
func (p *Proxy) ServeIn(network string, w http.ResponseWriter, r *http.Request) {
	p.serve("network "+network, w, r, func(ctx context.Context, a netip.Addr) (string, string, error) {
		return p.Resolver.InstanceIn(ctx, network, a)
	})
}

func (p *Proxy) serve(
	at string, w http.ResponseWriter, r *http.Request, who func(ctx context.Context, address netip.Addr) (instance, project string, err error),
) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
		return
	}
	address := from.Addr().Unmap()
	// A guest that has sent all it has to say may close its half: that is no
	// wish to have no answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patience)
	defer cancel()
	instance, project, err := who(ctx, address)
	if errors.Is(err, errdefs.ErrNotFound) {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		p.Log.Error().Err(err).Str("at", at).Stringer("from", address).Msg("who asks for metadata is not to be found out")
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	signed := r.Clone(ctx)
	signed.Header = http.Header{}
	for name, value := range map[string]string{
		headerInstance: instance, headerTenant: project, headerAddress: address.String(), headerSignature: sign(p.Secret, instance),
	} {
		signed.Header.Set(name, value)
	}
	signed.Body = http.MaxBytesReader(w, r.Body, maxBody)
	p.Next.ServeHTTP(w, signed)
}
