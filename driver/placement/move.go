package placement

import (
	"context"
	"fmt"
	"net/http"
)

// MoveAllocations gives what one consumer holds to another, whose own is
// replaced, in one request: a migration's to its instance. A first consumer that
// holds nothing is success, and nothing changes. After a conflict with another
// writer it reads again, four times at most.
func (r *Reporter) MoveAllocations(ctx context.Context, from, to string) error {
	return again(ctx, func(ctx context.Context) error {
		source, err := r.Allocations(ctx, from)
		if err != nil || len(source.Providers) == 0 {
			return err
		}
		target, err := r.Allocations(ctx, to)
		if err != nil {
			return err
		}
		held := map[string]amountDoc{}
		for uuid, amounts := range source.Providers {
			held[uuid] = amountDoc{amounts}
		}
		doc := map[string]allocationDoc{
			from: {Allocations: map[string]amountDoc{}, ProjectID: source.ProjectID, UserID: source.UserID, Generation: source.generation},
			to:   {Allocations: held, ProjectID: source.ProjectID, UserID: source.UserID, Generation: target.generation},
		}
		if err := r.do(ctx, http.MethodPost, "/allocations", nil, doc, nil); err != nil {
			return fmt.Errorf("move allocations of %s to %s: %w", from, to, err)
		}
		return nil
	})
}
