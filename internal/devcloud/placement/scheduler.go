package placement

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Request is what an instance needs.
type Request struct {
	// Resources are amounts by class.
	Resources map[string]int64
	// Required traits, and Forbidden ones.
	Required, Forbidden []string
	// MemberOf: of each list, one aggregate.
	MemberOf [][]string
	// Limit is the most candidates; 0 is 1,000.
	Limit int
}

// internally runs f as a request of the newest version.
func internally(ctx context.Context, within func(context.Context, func(*sql.Tx) error) error, f func(o operation) error) error {
	req := &rest.Request{Request: (&http.Request{Method: http.MethodGet}).WithContext(ctx), Version: microversions.Max}
	return within(ctx, func(tx *sql.Tx) error { return f(operation{ctx, req, tx}) })
}

// Candidates returns ways to meet r, each at one tree of providers. None is no
// error. Unknown classes and traits are errdefs.ErrInvalid.
func (s *Service) Candidates(ctx context.Context, r Request) (found []Candidate, err error) {
	err = internally(ctx, s.db.Read, func(o operation) error {
		if missing, err := o.unknownTraits(append(slices.Clone(r.Required), r.Forbidden...)); err != nil {
			return err
		} else if len(missing) > 0 {
			return fmt.Errorf("candidates: no such traits: %s: %w", joined(missing), errdefs.ErrInvalid)
		}
		if missing, err := o.unknownClasses(slices.Collect(maps.Keys(r.Resources))); err != nil {
			return err
		} else if len(missing) > 0 {
			return fmt.Errorf("candidates: no such resource classes: %s: %w", joined(missing), errdefs.ErrInvalid)
		}
		w, err := o.world()
		if err != nil {
			return err
		}
		g := group{resources: r.Resources, forbidden: r.Forbidden, memberOf: r.MemberOf}
		for _, t := range r.Required {
			g.required = append(g.required, []string{t})
		}
		limit := r.Limit
		if limit == 0 {
			limit = mostCandidates
		}
		found = w.candidates(request{groups: []group{g}, limit: limit, nested: true})
		return nil
	})
	return found, err
}

// Claim is what a consumer, an instance, is to have.
type Claim struct {
	Consumer, Project, User string
	// Type of the consumer, "INSTANCE".
	Type string
	// Allocations are amounts by provider and class.
	Allocations map[string]map[string]int64
}

// Allocate gives a consumer that instead of what it has. Where there is no room
// any more it is errdefs.ErrConflict, and nothing has changed.
func (s *Service) Allocate(ctx context.Context, c Claim) error {
	res := map[string]resources{}
	for id, r := range c.Allocations {
		res[id] = r
	}
	err := internally(ctx, s.db.Write, func(o operation) error {
		return o.allocate([]claim{{
			consumer: c.Consumer, project: c.Project, user: c.User,
			kind: sql.NullString{String: c.Type, Valid: c.Type != ""}, resources: res,
		}})
	})
	return inGo("allocate for "+c.Consumer, err)
}

// Free takes everything from a consumer. One without allocations is success.
func (s *Service) Free(ctx context.Context, consumer string) error {
	err := internally(ctx, s.db.Write, func(o operation) error {
		return o.allocate([]claim{{consumer: consumer}})
	})
	return inGo("free allocations of "+consumer, err)
}

// Consumers lists those that have allocations at a provider.
func (s *Service) Consumers(ctx context.Context, provider string) (list []string, err error) {
	err = internally(ctx, s.db.Read, func(o operation) error {
		list, err = o.column("SELECT DISTINCT consumer FROM allocations WHERE provider = ? ORDER BY consumer", provider)
		return err
	})
	return list, err
}

// SetAggregate makes a provider a member of an aggregate, both by their UUIDs, or
// ends that. What is so already is success; a provider that is not there is
// errdefs.ErrNotFound.
func (s *Service) SetAggregate(ctx context.Context, providerID, aggregate string, member bool) error {
	err := internally(ctx, s.db.Write, func(o operation) error {
		p, err := o.provider(providerID)
		if err != nil {
			return err
		}
		statement := "DELETE FROM provider_aggregates WHERE provider = ? AND aggregate = ?"
		if member {
			statement = "INSERT OR IGNORE INTO provider_aggregates (provider, aggregate) VALUES (?, ?)"
		}
		changed, err := o.exec(statement, p.uuid, aggregate)
		if err != nil || changed == 0 {
			return err
		}
		return o.touch(p)
	})
	return inGo("aggregate "+aggregate+" of provider "+providerID, err)
}

// inGo gives the API's refusals a class.
func inGo(operation string, err error) error {
	if err == nil {
		return nil
	}
	class := error(nil)
	if e, ok := asRefusal(err); ok {
		class = map[int]error{http.StatusConflict: errdefs.ErrConflict, http.StatusBadRequest: errdefs.ErrInvalid, http.StatusNotFound: errdefs.ErrNotFound}[e.Status]
	}
	if class == nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	return fmt.Errorf("%s: %w: %w", operation, err, class)
}
