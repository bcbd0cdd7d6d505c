// Package sqldb opens the databases of the embedded cloud: SQLite files in WAL
// mode, one for each service, as each service of an OpenStack has its own.
//
// What a writing transaction has committed outlives the death of the process; a
// loss of power may take the last transactions, but never leaves half of one
// (synchronous=NORMAL). Only internal/devcloud imports it.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"

	"modernc.org/sqlite" // the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// DB is one database. Reads run beside one another and beside one write; writes
// one after another. Methods may be called concurrently.
type DB struct {
	read, write *sql.DB
	path        string
}

// readers is how many reads run at a time.
const readers = 4

// Open opens or makes the file and brings it to the newest schema: migrations
// are scripts in order, which are only ever added to. A file of a newer gantry
// is errdefs.ErrUnsupported, one that is no database errdefs.ErrCorrupt.
func Open(ctx context.Context, path string, migrations ...string) (*DB, error) {
	// the file is ours alone, whatever the umask
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	d := &DB{path: path}
	if d.write, err = sql.Open("sqlite", dsn(path, "immediate")); err == nil {
		d.write.SetMaxOpenConns(1)
		d.read, err = sql.Open("sqlite", dsn(path, "deferred"))
	}
	if err == nil {
		d.read.SetMaxOpenConns(readers)
		d.read.SetMaxIdleConns(readers)
		err = d.migrate(ctx, migrations)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, classify(err)), d.Close())
	}
	return d, nil
}

func dsn(path, lock string) string {
	q := url.Values{"_txlock": {lock}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(1)", "temp_store(MEMORY)", "cache_size(-1024)",
	}}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func (d *DB) migrate(ctx context.Context, migrations []string) error {
	return d.Write(ctx, func(tx *sql.Tx) error {
		var have int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
			return err
		}
		if have > len(migrations) {
			return fmt.Errorf("schema %d, this gantry knows %d: %w", have, len(migrations), errdefs.ErrUnsupported)
		}
		if have == len(migrations) {
			return nil
		}
		for i, script := range migrations[have:] {
			if _, err := tx.ExecContext(ctx, script); err != nil {
				return fmt.Errorf("migration %d: %w", have+i+1, err)
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
		return err
	})
}

// Close closes it; what was committed stays.
func (d *DB) Close() error {
	var errs []error
	for _, db := range []*sql.DB{d.read, d.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Read runs f on one state of the database. Errors are those of Write.
func (d *DB) Read(ctx context.Context, f func(tx *sql.Tx) error) error {
	return within(ctx, d.read, f)
}

// Write runs f alone and commits when it returns nil; otherwise nothing has
// changed. Violated unique keys are errdefs.ErrAlreadyExists, violated foreign
// keys errdefs.ErrConflict, a full disk errdefs.ErrExhausted, sql.ErrNoRows
// errdefs.ErrNotFound; other errors of f are passed on.
func (d *DB) Write(ctx context.Context, f func(tx *sql.Tx) error) error {
	return within(ctx, d.write, f)
}

func within(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return classify(err)
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	if err := f(tx); err != nil {
		return classify(err)
	}
	return classify(tx.Commit())
}

// classify gives errors of the driver a class.
func classify(err error) error {
	if err == nil {
		return nil
	}
	class := error(nil)
	if errors.Is(err, sql.ErrNoRows) {
		class = errdefs.ErrNotFound
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch code := e.Code(); {
		case code == sqlite3.SQLITE_CONSTRAINT_UNIQUE, code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
			class = errdefs.ErrAlreadyExists
		case code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
			class = errdefs.ErrConflict
		case code&0xff == sqlite3.SQLITE_FULL:
			class = errdefs.ErrExhausted
		case code&0xff == sqlite3.SQLITE_NOTADB, code&0xff == sqlite3.SQLITE_CORRUPT:
			class = errdefs.ErrCorrupt
		}
	}
	if class == nil || errors.Is(err, class) {
		return err
	}
	return fmt.Errorf("%w: %w", err, class)
}
