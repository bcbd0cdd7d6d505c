package compute

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Options are what a Service is made of. All but Log must be set.
type Options struct {
	// Store is its database, which the caller closes after the service.
	Store *Store
	Auth  rest.Authenticator
	// Cell is the database of instances and hosts.
	Cell *cell.Store
	// Tasks is the conductor.
	Tasks Tasks
	// RPC reaches compute hosts.
	RPC      messaging.Caller
	Images   Images
	Networks Networks
	// Placement is told which hosts are in which aggregates.
	Placement Placement
	Identity  Identity
	// ImagesURL is the image service's, for the Location of snapshots.
	ImagesURL string
	// Quotas replace Nova's default limits, by resource ("instances"); -1 is no
	// limit.
	Quotas map[string]int
	Log    zerolog.Logger
}

// Service is the Compute API. It is safe for concurrent use.
type Service struct {
	*Store
	o          Options
	log        zerolog.Logger
	api, plain *rest.API
	words      stateWords
	actions    map[string]verb
}

// New returns the service.
func New(o Options) *Service {
	headers := []string{"X-Openstack-Request-Id", "X-Compute-Request-Id"}
	s := &Service{
		Store: o.Store, o: o, log: o.Log,
		api: rest.New(rest.Options{
			Style: style{}, Auth: o.Auth, RequestIDHeaders: headers, Log: o.Log,
			Microversions: &rest.Microversions{Service: "compute", Min: versionMin, Max: versionMax, Legacy: "X-OpenStack-Nova-API-Version"},
		}),
		plain: rest.New(rest.Options{Style: style{}, Auth: o.Auth, RequestIDHeaders: headers, Log: o.Log}),
	}
	s.words, s.actions = statuses(), s.verbs()
	s.routes()
	return s
}

// Handler is the API.
func (s *Service) Handler() http.Handler {
	return withLegacy(withoutProject(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2.1" || strings.HasPrefix(r.URL.Path, "/v2.1/") {
			s.api.ServeHTTP(w, r)
			return
		}
		s.plain.ServeHTTP(w, r)
	})))
}

// routes is the table of contents.
func (s *Service) routes() {
	s.versionRoutes()
	s.flavorRoutes()
	s.keypairRoutes()
	s.aggregateRoutes()
	s.groupRoutes()
	s.quotaRoutes()
	s.hostRoutes()
	s.serverRoutes()
	s.usageRoutes()
	s.eventRoutes()
	s.proxyRoutes()
	s.goneRoutes()
}

func (s *Service) open(pattern string, h rest.Handler) { s.api.HandleOpen(pattern, h) }

func (s *Service) handle(pattern string, h rest.Handler) { s.api.Handle(pattern, checked(h)) }

// action reads the body of an action: one key that names it. known finds its
// schema.
func action(r *rest.Request, known func(name string) (schema.Schema, bool)) (string, *schema.Dict, error) {
	v, err := document(r)
	if err != nil {
		return "", nil, err
	}
	d, ok := v.(*schema.Dict)
	if !ok || len(d.Keys) == 0 {
		return "", nil, badRequest("Malformed request body")
	}
	name := d.Keys[0]
	rules, ok := known(name)
	if !ok {
		return "", nil, badRequest("There is no such action: %s", name)
	}
	if refusal := rules.Body(d); refusal != "" {
		return "", nil, badRequest("%s", refusal)
	}
	return name, d, nil
}

// empty is an answer without a body, which Nova gives a type all the same.
func empty(status int) (*rest.Response, error) {
	return &rest.Response{Status: status, Header: http.Header{"Content-Type": {"application/json"}}}, nil
}

// projectExists refuses projects that the identity service does not know.
func (s *Service) projectExists(ctx context.Context, r *rest.Request, id string) error {
	if id == r.Caller.ProjectID {
		return nil
	}
	ok, err := s.o.Identity.ProjectExists(ctx, id)
	if err == nil && !ok {
		return badRequest("Project ID %s is not a valid project.", id)
	}
	return err
}

// Forms of times in answers.
const (
	secondsWithZeros = "2006-01-02T15:04:05.000000" // naive, as rows have it
	seconds          = "2006-01-02T15:04:05Z"
)

// now is the time as rows keep it.
func now() string { return time.Now().UTC().Format(secondsWithZeros) }

// parseTime reads what now has written; the zero time for all else.
func parseTime(s string) time.Time {
	t, _ := time.Parse(secondsWithZeros, s)
	return t
}

func parseTimeOf(s *string) *time.Time {
	if s == nil {
		return nil
	}
	t := parseTime(*s)
	return &t
}
