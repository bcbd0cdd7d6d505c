package compute

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/sqldb"
	"github.com/gantry-project/gantry/internal/errdefs"
)

//go:embed schema.sql
var tables string

// Store is the API's database: flavors, key pairs, aggregates, server groups
// and quotas. It is safe for concurrent use. The scheduler and the conductor ask
// it for zones and groups.
type Store struct{ db *sqldb.DB }

// Open opens or makes the database file at path. Errors are those of
// sqldb.Open.
func Open(ctx context.Context, path string) (*Store, error) {
	db, err := sqldb.Open(ctx, path, tables)
	if err != nil {
		return nil, fmt.Errorf("open compute: %w", err)
	}
	return &Store{db: db}, nil
}

// Close closes the database; what was written stays.
func (s *Store) Close() error { return s.db.Close() }

// Zones maps hosts to their availability zones; a host that is not in it is in
// the default zone.
func (s *Store) Zones(ctx context.Context) (map[string]string, error) {
	all, err := s.Aggregates(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, a := range all {
		for _, h := range a.Hosts {
			if a.Zone() != "" {
				out[h] = a.Zone()
			}
		}
	}
	return out, nil
}

// GroupOf returns the group that has the instance as a member, with uuid,
// policy, rules and members; errdefs.ErrNotFound if it is in none.
func (s *Store) GroupOf(ctx context.Context, instance string) (objects.InstanceGroup, error) {
	return s.groupObject(ctx, instance, "WHERE id = (SELECT groupid FROM group_members WHERE instance = ? ORDER BY id LIMIT 1)", instance)
}

// GroupByHint returns the group with that uuid or name; errdefs.ErrNotFound if
// there is none.
func (s *Store) GroupByHint(ctx context.Context, hint string) (objects.InstanceGroup, error) {
	return s.groupObject(ctx, hint, "WHERE uuid = ?1 OR name = ?1 ORDER BY uuid <> ?1, id LIMIT 1", hint)
}

func (s *Store) groupObject(ctx context.Context, what, tail string, args ...any) (objects.InstanceGroup, error) {
	all, err := s.groups(ctx, tail, args...)
	if err != nil {
		return objects.InstanceGroup{}, err
	}
	if len(all) == 0 {
		return objects.InstanceGroup{}, fmt.Errorf("server group of %s: %w", what, errdefs.ErrNotFound)
	}
	g, o := all[0], objects.New("InstanceGroup")
	for field, v := range map[string]any{
		"id": g.ID, "uuid": g.UUID, "name": g.Name, "project_id": g.ProjectID, "user_id": g.UserID,
		"policy": g.Policy, "_rules": g.Rules, "members": g.Members, "hosts": nil,
	} {
		o.SetClean(field, v)
	}
	return objects.InstanceGroup{Object: o}, nil
}

// exec runs one statement.
func (s *Store) exec(ctx context.Context, statement string, args ...any) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
}

// rows calls each for each row of a query.
func (s *Store) rows(ctx context.Context, each func(*sql.Rows) error, statement string, args ...any) error {
	return s.db.Read(ctx, func(tx *sql.Tx) error { return rowsOf(ctx, tx, each, statement, args...) })
}

func rowsOf(ctx context.Context, tx *sql.Tx, each func(*sql.Rows) error, statement string, args ...any) error {
	rows, err := tx.QueryContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err has said it all
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
