package cell

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/objects"
)

var consoleTokens = table{name: "console_tokens", object: "ConsoleAuthToken", without: []string{"token"}}

// AuthorizeConsole stores where a console is for ttl and returns the object
// with its token, which is kept as a hash only.
func (s *Store) AuthorizeConsole(ctx context.Context, console *objects.Object, ttl time.Duration) (*objects.Object, error) {
	o, token := console.Clone(), uuid.NewString()
	o.Unset("id")
	consoleTokens.complete(o)
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		data, err := encode(o)
		if err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, "INSERT INTO console_tokens (token_hash, instance_uuid, expires, data) VALUES (?, ?, ?, ?)",
			hashed(token), o.String("instance_uuid"), time.Now().Add(ttl).Unix(), data)
		if err != nil {
			return err
		}
		id, err := res.LastInsertId()
		o.SetClean("id", id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("authorize console of %s: %w", console.String("instance_uuid"), err)
	}
	o.SetClean("token", token)
	return o, nil
}

// Console returns what a token that has not expired leads to.
func (s *Store) Console(ctx context.Context, token string) (*objects.Object, error) {
	o, err := s.one(ctx, consoleTokens, "WHERE token_hash = ? AND expires > ?", hashed(token), time.Now().Unix())
	if err != nil {
		return nil, fmt.Errorf("validate console token: %w", err)
	}
	o.SetClean("token", token)
	return o, nil
}

// CleanConsoles removes the tokens of an instance.
func (s *Store) CleanConsoles(ctx context.Context, instance string) error {
	return s.remove(ctx, consoleTokens, "instance_uuid = ?", instance)
}

// CleanExpiredConsoles removes the tokens that have expired.
func (s *Store) CleanExpiredConsoles(ctx context.Context) error {
	return s.remove(ctx, consoleTokens, "expires <= ?", time.Now().Unix())
}

func hashed(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
