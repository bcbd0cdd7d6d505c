package cell

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/gantry-project/gantry/internal/devcloud/sqldb"
)

//go:embed schema.sql
var schema string

// Store is the cell's database. Its methods may be called concurrently; each
// is one transaction. Absent rows are errdefs.ErrNotFound.
type Store struct {
	db   *sqldb.DB
	memo memo
}

// Open opens or makes the database file at path. Errors are those of
// sqldb.Open.
func Open(ctx context.Context, path string) (*Store, error) {
	db, err := sqldb.Open(ctx, path, schema)
	if err != nil {
		return nil, fmt.Errorf("open cell: %w", err)
	}
	return &Store{db: db, memo: newMemo()}, nil
}

// Close closes the database; what was written stays.
func (s *Store) Close() error { return s.db.Close() }
