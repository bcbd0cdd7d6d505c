package placementtest

import (
	"maps"
	"net/http"
)

// heldOf returns what is held of a provider, by consumer.
func (s *Server) heldOf(provider string) map[string]map[string]int64 {
	out := map[string]map[string]int64{}
	for id, c := range s.consumers {
		if amounts, ok := c.held[provider]; ok {
			out[id] = amounts
		}
	}
	return out
}

func (s *Server) used(provider, class string) int64 {
	sum := int64(0)
	for _, amounts := range s.heldOf(provider) {
		sum += amounts[class]
	}
	return sum
}

func (s *Server) providerAllocations(r *http.Request) (any, error) {
	p, err := s.provider(r)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	for id, amounts := range s.heldOf(r.PathValue("id")) {
		out[id] = map[string]any{"resources": amounts, "consumer_generation": s.consumers[id].generation}
	}
	return map[string]any{"resource_provider_generation": p.generation, "allocations": out}, nil
}

func (s *Server) getAllocations(r *http.Request) (any, error) {
	c := s.consumers[r.PathValue("id")]
	if c == nil {
		return map[string]any{"allocations": map[string]any{}}, nil
	}
	held := map[string]any{}
	for id, amounts := range c.held {
		held[id] = map[string]any{"resources": amounts, "generation": s.providers[id].generation}
	}
	return map[string]any{
		"allocations": held, "project_id": c.project, "user_id": c.user, "consumer_generation": c.generation,
	}, nil
}

// claim is what a consumer is to hold.
type claim struct {
	Allocations map[string]struct {
		Resources map[string]int64 `json:"resources"`
	} `json:"allocations"`
	Project    string `json:"project_id"`
	User       string `json:"user_id"`
	Generation *int64 `json:"consumer_generation"`
}

func (s *Server) putAllocations(r *http.Request) (any, error) {
	var in claim
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return nil, s.replace(map[string]claim{r.PathValue("id"): in})
}

// postAllocations replaces what several consumers hold, all or none.
func (s *Server) postAllocations(r *http.Request) (any, error) {
	var in map[string]claim
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return nil, s.replace(in)
}

func (s *Server) replace(claims map[string]claim) error {
	before := maps.Clone(s.consumers)
	for id, in := range claims {
		c := before[id]
		if in.Project == "" || in.User == "" {
			return fail(http.StatusBadRequest, undefined, "JSON does not validate: '' is too short")
		}
		if (c == nil) != (in.Generation == nil) || (c != nil && c.generation != *in.Generation) {
			return fail(http.StatusConflict, concurrent, "consumer generation conflict")
		}
	}
	for id := range claims {
		delete(s.consumers, id)
	}
	for id, in := range claims {
		next := &consumer{project: in.Project, user: in.User, generation: 1, held: map[string]map[string]int64{}}
		if c := before[id]; c != nil {
			next.generation = c.generation + 1
		}
		for provider, want := range in.Allocations {
			for class, n := range want.Resources {
				if err := s.fits(provider, class, n); err != nil {
					s.consumers = before
					return err
				}
			}
			next.held[provider] = want.Resources
		}
		if len(next.held) > 0 {
			s.consumers[id] = next
		}
	}
	for _, in := range claims {
		for provider := range in.Allocations {
			s.providers[provider].generation++
		}
	}
	return nil
}

// fits checks an amount against what is left of an inventory.
func (s *Server) fits(provider, class string, n int64) error {
	p := s.providers[provider]
	if p == nil {
		return fail(http.StatusBadRequest, undefined, "Allocation for resource provider '%s' that does not exist.", provider)
	}
	i, ok := p.inventories[class]
	if room := int64(float64(i.Total-i.Reserved) * i.Ratio); !ok || n < i.Min || n > i.Max || n%i.Step != 0 || s.used(provider, class)+n > room {
		return fail(http.StatusConflict, undefined, "Unable to allocate inventory: Unable to create allocation for '%s'", class)
	}
	return nil
}

func (s *Server) deleteAllocations(r *http.Request) (any, error) {
	id := r.PathValue("id")
	if s.consumers[id] == nil {
		return nil, fail(http.StatusNotFound, undefined, "No allocations for consumer '%s'", id)
	}
	delete(s.consumers, id)
	return nil, nil
}
