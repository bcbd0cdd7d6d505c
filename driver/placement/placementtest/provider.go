package placementtest

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// changed is what a conflict of generations says.
func changed() error {
	return fail(http.StatusConflict, concurrent, "resource provider generation conflict")
}

func showInventories(p *provider) any {
	return map[string]any{"resource_provider_generation": p.generation, "inventories": p.inventories}
}

func (s *Server) getInventories(r *http.Request) (any, error) {
	p, err := s.provider(r)
	if err != nil {
		return nil, err
	}
	return showInventories(p), nil
}

func (s *Server) putInventories(r *http.Request) (any, error) {
	p, err := s.provider(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Generation  int64                `json:"resource_provider_generation"`
		Inventories map[string]inventory `json:"inventories"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Generation != p.generation {
		return nil, changed()
	}
	for class := range p.inventories {
		if _, stays := in.Inventories[class]; !stays && s.used(r.PathValue("id"), class) > 0 {
			return nil, fail(http.StatusConflict, "placement.inventory.inuse", "update conflict: Inventory for '%s' in use.", class)
		}
	}
	for class, i := range in.Inventories {
		if i.Total < 1 || i.Reserved > i.Total || i.Min < 1 || i.Max < 1 || i.Step < 1 || i.Ratio <= 0 {
			return nil, fail(http.StatusBadRequest, undefined, "Invalid inventory for '%s'", class)
		}
	}
	p.inventories = in.Inventories
	p.generation++
	return showInventories(p), nil
}

func showTraits(p *provider) any {
	return map[string]any{"resource_provider_generation": p.generation, "traits": append([]string{}, p.traits...)}
}

func (s *Server) getTraits(r *http.Request) (any, error) {
	p, err := s.provider(r)
	if err != nil {
		return nil, err
	}
	return showTraits(p), nil
}

func (s *Server) putTraits(r *http.Request) (any, error) {
	p, err := s.provider(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Generation int64    `json:"resource_provider_generation"`
		Traits     []string `json:"traits"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Generation != p.generation {
		return nil, changed()
	}
	for _, t := range in.Traits {
		if !s.traits[t] {
			return nil, fail(http.StatusBadRequest, undefined, "No such trait %s", t)
		}
	}
	p.traits = in.Traits
	p.generation++
	return showTraits(p), nil
}

func (s *Server) listTraits(r *http.Request) (any, error) {
	names := slices.Sorted(maps.Keys(s.traits))
	if in, ok := strings.CutPrefix(r.URL.Query().Get("name"), "in:"); ok {
		asked := strings.Split(in, ",")
		names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(asked, n) })
	}
	return map[string]any{"traits": append([]string{}, names...)}, nil
}

func (s *Server) createTrait(r *http.Request) (any, error) {
	name := r.PathValue("name")
	if !custom(name) {
		return nil, fail(http.StatusBadRequest, undefined, "The trait is invalid.")
	}
	s.traits[name] = true
	return nil, nil
}

func showAggregates(p *provider) any {
	return map[string]any{"resource_provider_generation": p.generation, "aggregates": append([]string{}, p.aggregates...)}
}

func (s *Server) getAggregates(r *http.Request) (any, error) {
	p, err := s.provider(r)
	if err != nil {
		return nil, err
	}
	return showAggregates(p), nil
}

func (s *Server) putAggregates(r *http.Request) (any, error) {
	p, err := s.provider(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Generation int64    `json:"resource_provider_generation"`
		Aggregates []string `json:"aggregates"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Generation != p.generation {
		return nil, changed()
	}
	p.aggregates = in.Aggregates
	p.generation++
	return showAggregates(p), nil
}
