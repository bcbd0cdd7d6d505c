package images

import (
	"context"
	_ "embed" // the schema
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/devcloud/sqldb"
)

//go:embed schema.sql
var schema string

// Quotas of one image (glance.common.config: image_property_quota and others),
// and the sizes of lists (limit_param_default, api_limit_max).
const (
	propertyQuota = 128
	tagQuota      = 128
	memberQuota   = 128
	defaultLimit  = 25
	maxLimit      = 1000
	maxSize       = 1 << 40 // image_size_cap
)

// Options of a Service.
type Options struct {
	// Path of the database file.
	Path string
	// Dir holds the data of images; it is made. Nothing else may be in it.
	Dir  string
	Auth rest.Authenticator
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	Log zerolog.Logger
}

// Service is the image service. Methods may be called concurrently.
type Service struct {
	o   Options
	db  *sqldb.DB
	api *rest.API

	mu sync.Mutex
	// busy are the ids of uploads that run: no new image may get such an id
	// while the data of a deleted one still comes in.
	// +checklocks:mu
	busy map[string]bool
}

// enter marks an id as busy until leave is called; not ok if it is already.
func (s *Service) enter(id string) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] {
		return nil, false
	}
	s.busy[id] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, id)
	}, true
}

// New opens the database and the directory, and removes what uploads that were
// cut off left there.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, dir := range []string{"data", "staging", "partial"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("open images: %w", err)
		}
	}
	db, err := sqldb.Open(ctx, o.Path, schema)
	if err != nil {
		return nil, err
	}
	s := &Service{o: o, db: db, busy: map[string]bool{}}
	if err := s.sweep(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open images: %w", err), db.Close())
	}
	s.api = rest.New(rest.Options{Style: style{}, Auth: o.Auth, OwnUnauthorized: true, Log: o.Log})
	s.infoRoutes()
	s.metadefRoutes()
	s.imageRoutes()
	s.dataRoutes()
	s.memberRoutes()
	return s, nil
}

// Close closes the database, after the last request.
func (s *Service) Close() error { return s.db.Close() }

// Handler is the API, to be served at a root. Bodies of /file are streams of
// any length: a server's timeout for reading or writing would break them.
func (s *Service) Handler() http.Handler { return s.api }

// now is the time in microseconds since 1970.
func (s *Service) now() int64 { return s.o.Now().UnixMicro() }
