package identity

import (
	"context"
	"database/sql"
	_ "embed" // the schema
	"net/http"
	"runtime"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/devcloud/sqldb"
)

//go:embed schema.sql
var schema string

//go:embed inherit.sql
var inheritance string

//go:embed endpointfilter.sql
var endpointFilter string

// DefaultDomain is the id of the domain that a request means which names none.
const DefaultDomain = "default"

// Options of a Service.
type Options struct {
	// Path of the database file.
	Path string
	// URL of the API as callers know it, "http://127.0.0.1:5000/v3".
	URL string
	// TokenLife is how long a token is good; 0 is a day.
	TokenLife time.Duration
	// Cost of password hashes (bcrypt's, 4 to 31); 0 is 10, some 50 ms.
	Cost int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	Log zerolog.Logger
}

// Service is the identity service. Methods may be called concurrently.
type Service struct {
	o       Options
	db      *sqldb.DB
	api     *rest.API
	cache   cache
	secrets *secrets
}

var (
	_ rest.Authenticator = (*Service)(nil)
	_ rest.Locator       = (*Service)(nil)
)

// New opens the database. It has nothing in it before Bootstrap.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.TokenLife == 0 {
		o.TokenLife = 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	db, err := sqldb.Open(ctx, o.Path, schema, inheritance, endpointFilter)
	if err != nil {
		return nil, err
	}
	s := &Service{o: o, db: db, secrets: newSecrets(o.Cost, runtime.NumCPU())}
	s.api = rest.New(rest.Options{Style: style{}, Auth: s, Log: o.Log})
	s.routes()
	return s, nil
}

// Location implements rest.Locator.
func (s *Service) Location() string { return s.o.URL }

// Close closes the database, after the last request.
func (s *Service) Close() error { return s.db.Close() }

// Handler is the API, to be served at a root.
func (s *Service) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "X-Auth-Token")
		s.api.ServeHTTP(w, r)
	})
}

func (s *Service) routes() {
	s.discoveryRoutes()
	s.emptyRoutes()
	s.tokenRoutes()
	for _, n := range nouns {
		s.nounRoutes(n)
	}
	s.userRoutes()
	s.groupRoutes()
	s.projectRoutes()
	s.roleRoutes()
	s.grantRoutes()
	s.credentialRoutes()
	s.endpointFilterRoutes()
}

// change is a write after which other tokens may be good or say other things.
func (s *Service) change(ctx context.Context, f func(tx *sql.Tx) error) error {
	err := s.db.Write(ctx, f)
	s.cache.flush()
	return err
}

// handler answers a caller whose token was good.
type handler func(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error)

// handle adds a route for callers with a token.
func (s *Service) handle(pattern string, h handler) {
	s.api.Handle(pattern, func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		who, err := s.session(ctx, r.Caller.Token)
		if err != nil {
			return nil, unauthorized(err)
		}
		return h(ctx, r, who)
	})
}
