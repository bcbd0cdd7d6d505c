package cell

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Purge removes what is left of instances that were deleted before a time:
// their rows, requests, faults, actions with events, and moves. It returns how
// many instances that were. Lists with deleted instances do not have them any
// more.
//
// Source: nova/db/main/api.py, archive_deleted_rows and purge_shadow_tables,
// which do the same in two steps.
func (s *Store) Purge(ctx context.Context, before time.Time) (purged int64, err error) {
	const gone = "(SELECT uuid FROM instances WHERE deleted = 1 AND deleted_at < ?)"
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, t := range []string{"request_specs", "faults", "actions", "migrations", "block_devices", "virtual_interfaces", "console_tokens"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+t+" WHERE instance_uuid IN "+gone, stamp(before)); err != nil {
				return err
			}
		}
		res, err := tx.ExecContext(ctx, "DELETE FROM instances WHERE deleted = 1 AND deleted_at < ?", stamp(before))
		if err != nil {
			return err
		}
		purged, err = res.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("purge deleted instances: %w", err)
	}
	return purged, nil
}

// primeStep is how many instances Prime decodes at a time.
const primeStep = 50

// Prime decodes the instances that are not deleted, so that the first list does
// not wait for that. There may be more than are kept decoded; it stops there.
func (s *Store) Prime(ctx context.Context) error {
	after := int64(0)
	for n := 0; n < memoSize; n += primeStep {
		count := 0
		err := s.db.Read(ctx, func(tx *sql.Tx) error {
			rows, err := s.loadAll(ctx, tx, fmt.Sprintf(" WHERE deleted = 0 AND id > ? ORDER BY id LIMIT %d", primeStep), []any{after})
			if count = len(rows); count > 0 {
				after = rows[count-1].Int("id")
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("read instances: %w", err)
		}
		if count < primeStep {
			return nil
		}
	}
	return nil
}
