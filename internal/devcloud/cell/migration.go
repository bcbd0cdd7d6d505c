package cell

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/objects"
)

var migrations = table{name: "migrations", object: "Migration", columns: []string{
	"uuid", "instance_uuid", "project_id", "user_id", "status", "migration_type", "source_compute", "source_node",
	"dest_compute", "dest_node", "created_at", "updated_at", "hidden", "deleted",
}}

// over are the states of a migration that takes no resources any more; one in
// error may.
var over = []string{"confirmed", "reverted", "failed", "completed", "cancelled", "done"}

// MigrationQuery selects migrations; the zero value selects all that are not
// deleted.
type MigrationQuery struct {
	// Host and Node are the source's or the destination's, Source the source's
	// host only.
	Host, Node, Source string
	// Statuses and UUIDs: nil is any.
	Statuses, UUIDs []string
	// Type is migration, resize, live-migration or evacuation.
	Type                            string
	InstanceUUID, UserID, ProjectID string
	Hidden                          *bool
	ChangedSince, ChangedBefore     time.Time
	// InProgress leaves out the ones that take no resources any more.
	InProgress bool
	// Deleted has deleted ones too.
	Deleted bool
	// Newest first, with Marker (a uuid; an unknown one is errdefs.ErrNotFound)
	// and Limit (0 is none). Otherwise oldest first.
	Newest bool
	Marker string
	Limit  int
}

// Migrations returns the Migration objects of a query.
func (s *Store) Migrations(ctx context.Context, q MigrationQuery) (out []*objects.Object, err error) {
	b := &builder{}
	q.filter(b)
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		if q.Marker != "" {
			m, err := migrations.one(ctx, tx, "WHERE uuid = ?", q.Marker)
			if err != nil {
				return fmt.Errorf("marker %s: %w", q.Marker, err)
			}
			b.add("id < ?", m.Int("id"))
		}
		tail := b.where() + " ORDER BY id"
		if q.Newest {
			tail += " DESC"
		}
		if q.Limit > 0 {
			tail += fmt.Sprintf(" LIMIT %d", q.Limit)
		}
		out, err = migrations.list(ctx, tx, tail, b.args...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	return out, nil
}

func (q MigrationQuery) filter(b *builder) {
	if !q.Deleted {
		b.add("deleted = 0")
	}
	if q.Host != "" && q.Node != "" {
		b.add("(source_compute = ? AND source_node = ? OR dest_compute = ? AND dest_node = ?)", q.Host, q.Node, q.Host, q.Node)
	} else if q.Host != "" {
		b.add("(source_compute = ? OR dest_compute = ?)", q.Host, q.Host)
	} else if q.Node != "" {
		b.add("(source_node = ? OR dest_node = ?)", q.Node, q.Node)
	}
	for column, v := range map[string]string{
		"source_compute": q.Source, "migration_type": q.Type, "instance_uuid": q.InstanceUUID,
		"user_id": q.UserID, "project_id": q.ProjectID,
	} {
		if v != "" {
			b.add(column+" = ?", v)
		}
	}
	for column, v := range map[string][]string{"status": q.Statuses, "uuid": q.UUIDs} {
		if v != nil {
			b.add(column+" IN (SELECT value FROM json_each(?))", array(v))
		}
	}
	if q.InProgress {
		b.add("status NOT IN (SELECT value FROM json_each(?))", array(over))
	}
	if q.Hidden != nil {
		b.add("hidden = ?", *q.Hidden)
	}
	if !q.ChangedSince.IsZero() {
		b.add("coalesce(updated_at, created_at) >= ?", stamp(q.ChangedSince))
	}
	if !q.ChangedBefore.IsZero() {
		b.add("coalesce(updated_at, created_at) <= ?", stamp(q.ChangedBefore))
	}
}

// Migration returns the migration with that row id.
func (s *Store) Migration(ctx context.Context, id int64) (*objects.Object, error) {
	o, err := s.one(ctx, migrations, "WHERE id = ? AND deleted = 0", id)
	if err != nil {
		return nil, fmt.Errorf("get migration %d: %w", id, err)
	}
	return o, nil
}

// CreateMigration stores a migration; a missing uuid is made.
func (s *Store) CreateMigration(ctx context.Context, m *objects.Object) (*objects.Object, error) {
	m = m.Clone()
	if m.String("uuid") == "" {
		m.SetClean("uuid", uuid.NewString())
	}
	o, err := s.insert(ctx, migrations, m)
	if err != nil {
		return nil, fmt.Errorf("create migration %s: %w", m.String("uuid"), err)
	}
	return o, nil
}

// SaveMigration sets fields of the migration with that row id.
func (s *Store) SaveMigration(ctx context.Context, id int64, fields map[string]any) (*objects.Object, error) {
	o, err := s.change(ctx, migrations, setting(fields), "WHERE id = ? AND deleted = 0", id)
	if err != nil {
		return nil, fmt.Errorf("save migration %d: %w", id, err)
	}
	return o, nil
}

// endMigrations marks the migrations of a deleted instance as deleted.
func endMigrations(ctx context.Context, tx *sql.Tx, instance string) error {
	rows, err := migrations.list(ctx, tx, "WHERE instance_uuid = ? AND deleted = 0", instance)
	if err != nil {
		return err
	}
	for _, m := range rows {
		apply(m, map[string]any{"deleted": true, "deleted_at": time.Now()})
		if err := migrations.update(ctx, tx, m); err != nil {
			return err
		}
	}
	return nil
}
