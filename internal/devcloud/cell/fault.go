package cell

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/gantry-project/gantry/driver/objects"
)

var faults = table{name: "faults", object: "InstanceFault", columns: []string{"instance_uuid"}}

// AddFault stores a fault; from then on it is the field "fault" of its
// instance. An instance that is not there is errdefs.ErrNotFound.
func (s *Store) AddFault(ctx context.Context, f objects.InstanceFault) (objects.InstanceFault, error) {
	f = objects.InstanceFault{Object: f.Clone()}
	id := f.String("instance_uuid")
	var i objects.Instance
	var rev int64
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		shared, r, err := s.load(ctx, tx, id, "")
		if err != nil {
			return err
		}
		if err := faults.insert(ctx, tx, f.Object); err != nil {
			return err
		}
		rev = r + 1
		i = objects.Instance{Object: shared.Clone()}
		i.SetClean("fault", f.Clone())
		return writeInstance(ctx, tx, i)
	})
	if err != nil {
		return objects.InstanceFault{}, fmt.Errorf("store fault of %s: %w", id, err)
	}
	s.memo.put(i.ID(), rev, i.Object)
	return f, nil
}

// Faults returns the faults of an instance, newest first.
func (s *Store) Faults(ctx context.Context, instance string) ([]*objects.Object, error) {
	return s.list(ctx, faults, "WHERE instance_uuid = ? ORDER BY id DESC", instance)
}
