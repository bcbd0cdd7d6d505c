package placement

import (
	"context"
	"database/sql"
)

// Move gives one consumer, of the type kind, what another one holds, in one
// step; the first consumer then holds nothing. One that holds nothing is
// success, and nothing changes.
func (s *Service) Move(ctx context.Context, from, to, kind string) error {
	err := internally(ctx, s.db.Write, func(o operation) error {
		source, err := o.consumer(from)
		if err != nil || source == nil {
			return err
		}
		held, err := o.allocated(from)
		if err != nil || len(held) == 0 {
			return err
		}
		return o.allocate([]claim{{consumer: from}, {
			consumer: to, project: source.project, user: source.user, kind: sql.NullString{String: kind, Valid: true}, resources: held,
		}})
	})
	return inGo("move allocations of "+from+" to "+to, err)
}
