package network

import (
	"context"
	"fmt"
	"net/http"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Options of a Service.
type Options struct {
	// Path is the database's file, made when it is missing.
	Path string
	// Host is the name of the one host there is, as ports are bound to it.
	Host string
	// Auth finds callers.
	Auth rest.Authenticator
	// Fabric makes networks real. Without one nothing is made, and a port is
	// taken to be plugged as soon as it is bound to Host.
	Fabric Fabric
	// Events is told what Nova waits for; nil: nobody is.
	Events Events
	Log    zerolog.Logger
}

// Service is the network service. Safe for concurrent use.
type Service struct {
	o      Options
	store  *store
	api    *rest.API
	fabric *realiser
	events *notifier
}

// New opens the state. Nothing is sent to the fabric before Run.
func New(ctx context.Context, o Options) (*Service, error) {
	st, err := openStore(ctx, o.Path)
	if err != nil {
		return nil, fmt.Errorf("network service: %w", err)
	}
	s := &Service{o: o, store: st}
	s.api = rest.New(rest.Options{Style: style{}, Auth: o.Auth, Log: o.Log})
	s.events = newNotifier(o.Events, o.Log)
	s.fabric = newRealiser(s, o.Fabric, o.Log)
	if err := s.write(ctx, func(st *state) error {
		st.ensureAgents()
		st.ensurePolicies()
		for n := range st.networks.all() {
			st.serve(n.ID, o.Host) // an older version has left some without
		}
		return nil
	}); err != nil {
		_ = st.db.Close() // the first error tells more
		return nil, fmt.Errorf("network service: %w", err)
	}
	s.routes()
	return s, nil
}

func (s *Service) routes() {
	s.versionRoutes()
	s.extensionRoutes()
	s.networkRoutes()
	s.subnetRoutes()
	s.portRoutes()
	s.groupRoutes()
	s.ruleRoutes()
	s.routerRoutes()
	s.floatingRoutes()
	s.quotaRoutes()
	s.agentRoutes()
	s.tagRoutes()
	s.availabilityRoutes()
	s.route(&scopeResource, scopes.verbs(s))
	s.poolRoutes()
	s.addressGroupRoutes()
	s.route(&rbacResource, policies.verbs(s))
	s.topologyRoutes()
	s.floatingPoolRoutes()
}

// Handler serves the API below the service's own address ("/", "/v2.0/...").
func (s *Service) Handler() http.Handler { return s.api }

// Run makes the networks real until ctx ends: it sends everything to the fabric
// and then what changes, follows devices, and tells Nova. The API may serve
// before and after. It returns ctx's error.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.fabric.run(ctx) })
	g.Go(func() error { return s.fabric.watch(ctx) })
	g.Go(func() error { return s.events.run(ctx) })
	return g.Wait()
}

// Close closes the database. Run must have returned.
func (s *Service) Close() error { return s.store.db.Close() }

// write changes the state; what follows from the change for the host and for
// Nova is under way when it returns.
func (s *Service) write(ctx context.Context, f func(*state) error) error {
	var dirty []key
	o, err := s.store.write(ctx, func(st *state) error {
		if err := f(st); err != nil {
			return err
		}
		st.serveTouched(s.o.Host)
		dirty = st.touched()
		return nil
	})
	if err != nil {
		return err
	}
	s.fabric.mark(dirty)
	s.events.send(o.events)
	return nil
}

// versionRoutes answer discovery (neutron/pecan_wsgi/controllers/root.py).
func (s *Service) versionRoutes() {
	s.api.HandleOpen("GET /{$}", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		return rest.OK(map[string]any{"versions": []any{map[string]any{
			"id": "v2.0", "status": "CURRENT",
			"links": []any{map[string]string{"rel": "self", "href": r.Base() + "/v2.0/"}},
		}}})
	})
	s.api.Handle("GET /v2.0", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		all := []any{}
		for _, res := range []*resource{&networkResource, &subnetResource, &portResource} {
			all = append(all, map[string]any{"name": res.name, "collection": res.plural, "links": []any{
				map[string]string{"rel": "self", "href": r.Base() + "/v2.0/" + res.path},
			}})
		}
		return rest.OK(map[string]any{"resources": all})
	})
}
