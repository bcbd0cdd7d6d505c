// Package placementtest is an in-memory Placement service for tests: a small
// real one, with generations of providers and consumers, allocations that need
// inventory, and the errors of the true service. It is an http.Handler, so that
// a client is tested with the requests it makes.
//
// Source: placement/handlers/*.py and placement/util.py (json_error_formatter).
package placementtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// Server is the service. Safe for concurrent use.
type Server struct {
	mux *http.ServeMux

	mu        sync.Mutex
	providers map[string]*provider
	consumers map[string]*consumer
	traits    map[string]bool
	writes    []string
	before    func(r *http.Request)
}

type provider struct {
	name        string
	generation  int64
	inventories map[string]inventory
	traits      []string
	aggregates  []string
}

type inventory struct {
	Total    int64   `json:"total"`
	Reserved int64   `json:"reserved"`
	Min      int64   `json:"min_unit"`
	Max      int64   `json:"max_unit"`
	Step     int64   `json:"step_size"`
	Ratio    float64 `json:"allocation_ratio"`
}

type consumer struct {
	generation    int64
	project, user string
	held          map[string]map[string]int64
}

// New returns a service that knows the given standard traits.
func New(traits ...string) *Server {
	s := &Server{
		mux: http.NewServeMux(), providers: map[string]*provider{}, consumers: map[string]*consumer{}, traits: map[string]bool{},
	}
	for _, t := range traits {
		s.traits[t] = true
	}
	for pattern, h := range map[string]handler{
		"GET /resource_providers":                  s.list,
		"POST /resource_providers":                 s.create,
		"DELETE /resource_providers/{id}":          s.remove,
		"GET /resource_providers/{id}/inventories": s.getInventories,
		"PUT /resource_providers/{id}/inventories": s.putInventories,
		"GET /resource_providers/{id}/traits":      s.getTraits,
		"PUT /resource_providers/{id}/traits":      s.putTraits,
		"GET /resource_providers/{id}/aggregates":  s.getAggregates,
		"PUT /resource_providers/{id}/aggregates":  s.putAggregates,
		"GET /resource_providers/{id}/allocations": s.providerAllocations,
		"GET /traits":              s.listTraits,
		"PUT /traits/{name}":       s.createTrait,
		"GET /allocations/{id}":    s.getAllocations,
		"PUT /allocations/{id}":    s.putAllocations,
		"POST /allocations":        s.postAllocations,
		"DELETE /allocations/{id}": s.deleteAllocations,
	} {
		s.mux.HandleFunc(pattern, s.serve(h))
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Before sets a function that is called ahead of each request, for example to
// change a provider between a client's read and its write.
func (s *Server) Before(f func(r *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// Writes returns the requests other than GET so far, as "PUT /path".
func (s *Server) Writes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// Touch raises a provider's generation, as a write by somebody else does.
func (s *Server) Touch(provider string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.providers[provider]; p != nil {
		p.generation++
	}
}

// TouchConsumer raises a consumer's generation.
func (s *Server) TouchConsumer(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.consumers[id]; c != nil {
		c.generation++
	}
}

// failure is an answer that is not a success.
type failure struct {
	status int
	code   string
	detail string
}

func (f *failure) Error() string { return f.detail }

func fail(status int, code, format string, args ...any) error {
	return &failure{status, code, fmt.Sprintf(format, args...)}
}

const (
	undefined  = "placement.undefined_code"
	concurrent = "placement.concurrent_update"
)

// handler answers a request: a body for 200, nil for 204.
type handler func(r *http.Request) (any, error)

func (s *Server) serve(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		before := s.before
		s.mu.Unlock()
		if before != nil {
			before(r)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Method != http.MethodGet {
			s.writes = append(s.writes, r.Method+" "+r.URL.Path)
		}
		version := r.Header.Get("OpenStack-API-Version")
		w.Header().Set("OpenStack-API-Version", version)
		body, err := any(nil), error(nil)
		if version != "placement 1.28" {
			err = fail(http.StatusNotAcceptable, undefined, "this double speaks placement 1.28 only, not %q", version)
		} else {
			body, err = h(r)
		}
		answer(w, body, err)
	}
}

func answer(w http.ResponseWriter, body any, err error) {
	status := http.StatusOK
	if err != nil {
		f, ok := err.(*failure)
		if !ok {
			f = &failure{http.StatusBadRequest, undefined, err.Error()}
		}
		status = f.status
		body = map[string]any{"errors": []any{map[string]any{
			"status": f.status, "title": http.StatusText(f.status), "detail": f.detail, "code": f.code,
		}}}
	}
	if body == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (s *Server) provider(r *http.Request) (*provider, error) {
	id := r.PathValue("id")
	p := s.providers[id]
	if p == nil {
		return nil, fail(http.StatusNotFound, "placement.resource_provider.not_found", "No resource provider with uuid %s found", id)
	}
	return p, nil
}

func (s *Server) list(r *http.Request) (any, error) {
	out := []any{}
	for _, id := range slices.Sorted(maps.Keys(s.providers)) {
		p, q := s.providers[id], r.URL.Query()
		if (q.Has("in_tree") && q.Get("in_tree") != id) || (q.Has("uuid") && q.Get("uuid") != id) || (q.Has("name") && q.Get("name") != p.name) {
			continue
		}
		out = append(out, show(id, p))
	}
	return map[string]any{"resource_providers": out}, nil
}

func show(id string, p *provider) map[string]any {
	return map[string]any{"uuid": id, "name": p.name, "generation": p.generation, "parent_provider_uuid": nil, "root_provider_uuid": id}
}

func (s *Server) create(r *http.Request) (any, error) {
	var in struct{ UUID, Name string }
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if _, err := uuid.Parse(in.UUID); err != nil || in.Name == "" {
		return nil, fail(http.StatusBadRequest, undefined, "JSON does not validate")
	}
	for id, p := range s.providers {
		if id == in.UUID || p.name == in.Name {
			return nil, fail(http.StatusConflict, "placement.duplicate_name", "Conflicting resource provider name: %s already exists.", in.Name)
		}
	}
	s.providers[in.UUID] = &provider{name: in.Name, inventories: map[string]inventory{}}
	return show(in.UUID, s.providers[in.UUID]), nil
}

func (s *Server) remove(r *http.Request) (any, error) {
	if _, err := s.provider(r); err != nil {
		return nil, err
	}
	if len(s.heldOf(r.PathValue("id"))) > 0 {
		return nil, fail(http.StatusConflict, "placement.resource_provider.inuse", "Unable to delete resource provider: in use")
	}
	delete(s.providers, r.PathValue("id"))
	return nil, nil
}

func decode(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fail(http.StatusBadRequest, undefined, "JSON does not validate: %v", err)
	}
	return nil
}

func custom(name string) bool {
	return strings.HasPrefix(name, "CUSTOM_") && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}
