package placement

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Resources are amounts by resource class.
type Resources map[string]int64

// Allocation is what one consumer (an instance, or a migration for the old
// side of a move) holds.
type Allocation struct {
	Consumer, ProjectID, UserID string
	// Providers holds the amounts by provider UUID; empty for a consumer that
	// holds nothing.
	Providers map[string]Resources
	// generation of the consumer, nil for one that placement does not know.
	generation *int64
}

type allocationDoc struct {
	Allocations map[string]amountDoc `json:"allocations"`
	ProjectID   string               `json:"project_id"`
	UserID      string               `json:"user_id"`
	Generation  *int64               `json:"consumer_generation"`
}

type amountDoc struct {
	Resources Resources `json:"resources"`
}

// Allocations returns what a consumer holds.
func (r *Reporter) Allocations(ctx context.Context, consumer string) (Allocation, error) {
	var doc allocationDoc
	if err := r.do(ctx, http.MethodGet, "/allocations/"+consumer, nil, nil, &doc); err != nil {
		return Allocation{}, fmt.Errorf("read allocations of %s: %w", consumer, err)
	}
	a := Allocation{
		Consumer: consumer, ProjectID: doc.ProjectID, UserID: doc.UserID,
		Providers: map[string]Resources{}, generation: doc.Generation,
	}
	for uuid, amount := range doc.Allocations {
		a.Providers[uuid] = amount.Resources
	}
	return a, nil
}

// put replaces what the consumer holds, if nobody has changed it since it was
// read. Nothing left ends the consumer.
func (r *Reporter) put(ctx context.Context, a Allocation) error {
	doc := allocationDoc{
		Allocations: map[string]amountDoc{}, ProjectID: a.ProjectID, UserID: a.UserID, Generation: a.generation,
	}
	for uuid, amounts := range a.Providers {
		doc.Allocations[uuid] = amountDoc{amounts}
	}
	if err := r.do(ctx, http.MethodPut, "/allocations/"+a.Consumer, nil, doc, nil); err != nil {
		return fmt.Errorf("write allocations of %s: %w", a.Consumer, err)
	}
	return nil
}

// DeleteAllocations removes all that a consumer holds, whoever changed it last:
// for a build that failed and for an ordinary delete. Nothing there is success.
func (r *Reporter) DeleteAllocations(ctx context.Context, consumer string) error {
	err := r.do(ctx, http.MethodDelete, "/allocations/"+consumer, nil, nil, nil)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("delete allocations of %s: %w", consumer, err)
	}
	return nil
}

// HealAllocation is the careful delete, for a consumer that is thought to be
// gone: errdefs.ErrConflict, to be left for later, if somebody changes it at
// the same time. Nothing there is success.
func (r *Reporter) HealAllocation(ctx context.Context, consumer string) error {
	a, err := r.Allocations(ctx, consumer)
	if err != nil || len(a.Providers) == 0 {
		return err
	}
	a.Providers = nil
	return r.put(ctx, a)
}

// RemoveProvider takes one provider out of what the consumer holds and leaves
// the rest, as a host does that was evacuated. Nothing there is success. After
// a conflict with another writer it reads again, four times at most.
func (r *Reporter) RemoveProvider(ctx context.Context, consumer, provider string) error {
	return again(ctx, func(ctx context.Context) error {
		a, err := r.Allocations(ctx, consumer)
		if err != nil {
			return err
		}
		if _, holds := a.Providers[provider]; !holds {
			return nil
		}
		delete(a.Providers, provider)
		return r.put(ctx, a)
	})
}

// ProviderAllocations returns what is held of a provider, by consumer.
// errdefs.ErrNotFound if the provider is absent.
func (r *Reporter) ProviderAllocations(ctx context.Context, provider string) (map[string]Resources, error) {
	var doc struct {
		Allocations map[string]amountDoc `json:"allocations"`
	}
	if err := r.do(ctx, http.MethodGet, "/resource_providers/"+provider+"/allocations", nil, nil, &doc); err != nil {
		return nil, fmt.Errorf("read allocations of provider %s: %w", provider, err)
	}
	out := make(map[string]Resources, len(doc.Allocations))
	for consumer, amount := range doc.Allocations {
		out[consumer] = amount.Resources
	}
	return out, nil
}

// Consumers lists who holds resources of the provider, sorted. An absent
// provider has none.
func (r *Reporter) Consumers(ctx context.Context, provider string) ([]string, error) {
	held, err := r.ProviderAllocations(ctx, provider)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	return slices.Sorted(maps.Keys(held)), err
}
