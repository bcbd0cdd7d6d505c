package sqldb

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const schema = `CREATE TABLE parents (id TEXT PRIMARY KEY) STRICT;
CREATE TABLE children (id TEXT PRIMARY KEY, parent TEXT NOT NULL REFERENCES parents (id)) STRICT;`

func open(t *testing.T, path string, migrations ...string) *DB {
	t.Helper()
	d, err := Open(t.Context(), path, migrations...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func exec(t *testing.T, d *DB, statement string, args ...any) error {
	t.Helper()
	return d.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), statement, args...)
		return err
	})
}

func count(t *testing.T, d *DB, table string) (n int) {
	t.Helper()
	if err := d.Read(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n)
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestErrorsHaveAClass(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "db"), schema)
	if err := exec(t, d, "INSERT INTO parents VALUES ('a')"); err != nil {
		t.Fatal(err)
	}
	if err := exec(t, d, "INSERT INTO parents VALUES ('a')"); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("a second one: %v", err)
	}
	if err := exec(t, d, "INSERT INTO children VALUES ('c', 'nobody')"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a child of nobody: %v", err)
	}
	err := d.Read(t.Context(), func(tx *sql.Tx) error {
		var id string
		return tx.QueryRowContext(t.Context(), "SELECT id FROM parents WHERE id = 'b'").Scan(&id)
	})
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an absent row: %v", err)
	}
}

func TestAFailedWriteChangesNothing(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "db"), schema)
	boom := errors.New("boom")
	err := d.Write(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO parents VALUES ('a')"); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	if n := count(t, d, "parents"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestSchemaGrowsAndIsNeverTakenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c%.db")
	more := "CREATE TABLE others (id TEXT) STRICT"
	first, err := Open(t.Context(), path, schema)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec(t, first, "INSERT INTO parents VALUES ('kept')"); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, path, schema, more)
	if n := count(t, second, "parents") + count(t, second, "others"); n != 1 {
		t.Errorf("%d rows after the migration", n)
	}
	if _, err := Open(t.Context(), path, schema); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("an older gantry: %v", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestABrokenFileIsCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, []byte("this is no database, it only looks long enough to be one of them. "), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, schema); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

func TestReadersDoNotWaitForAWriter(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "db"), schema)
	err := d.Write(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO parents VALUES ('a')"); err != nil {
			return err
		}
		if n := count(t, d, "parents"); n != 0 {
			t.Errorf("a reader sees %d rows that are not committed", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
