package compute

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// keyBits is the length of generated keys, as Nova's.
const keyBits = 2048

// keyPair is a user's public key.
type keyPair struct {
	id                           int64
	user, name, fingerprint, key string
	created                      time.Time
}

func keypairSchema(v rest.Version) schema.Schema {
	name, key := schema.KeyName("_- "), schema.Opt("public_key", schema.String()...)
	if v.AtLeast(2, 92) {
		name, key = schema.KeyName("@._- "), schema.Req("public_key", schema.String()...)
	}
	fields := []schema.Field{schema.Req("name", name...)}
	if v.AtLeast(2, 2) {
		fields = append(fields, schema.Opt("type", schema.Type("string"), schema.Enum("ssh", "x509")))
	}
	fields = append(fields, key)
	if v.AtLeast(2, 10) {
		fields = append(fields, schema.Opt("user_id", schema.String()...))
	}
	return schema.Object(schema.Req("keypair", schema.Object(fields...)...))
}

func (s *Service) keypairRoutes() {
	s.handle("GET /v2.1/os-keypairs", s.keypairList)
	s.handle("POST /v2.1/os-keypairs", s.keypairCreate)
	s.handle("GET /v2.1/os-keypairs/{id}", s.keypairShow)
	s.handle("DELETE /v2.1/os-keypairs/{id}", s.keypairDelete)
}

// keyUser is whose keys are meant: the caller's, or from 2.10 on those of the
// query's user, which is for administrators.
func keyUser(r *rest.Request, verb string, more ...schema.Field) (string, error) {
	user := schema.Opt("user_id", schema.Params(schema.String())...)
	if err := queries(r, append(more, user)...); err != nil {
		return "", err
	}
	id := r.Caller.UserID
	if asked := r.Params().Get("user_id"); asked != "" && r.Version.AtLeast(2, 10) {
		id = asked
	}
	return id, allow(id == r.Caller.UserID || r.Caller.Admin(), "os-keypairs:"+verb)
}

func (s *Service) keypairList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	pages := r.Version.AtLeast(2, 35)
	var more []schema.Field
	if pages {
		more = paging()
	}
	user, err := keyUser(r, "index", more...)
	if err != nil {
		return nil, err
	}
	all, err := s.keypairs(ctx, "WHERE user = ? ORDER BY name", user)
	if err != nil {
		return nil, err
	}
	n, marker := pageSize, ""
	if pages {
		n, marker = limit(r), r.Params().Get("marker")
	}
	page, _, ok := rest.Page(all, func(k *keyPair) string { return k.name }, marker, n)
	if !ok {
		return nil, badRequest("Marker %s could not be found.", marker)
	}
	views := make([]any, len(page))
	for i, k := range page {
		v := map[string]any{"name": k.name, "public_key": k.key, "fingerprint": k.fingerprint}
		if r.Version.AtLeast(2, 2) {
			v["type"] = "ssh"
		}
		views[i] = map[string]any{"keypair": v}
	}
	out := map[string]any{"keypairs": views}
	if pages {
		if next := at(r, "os-keypairs").next(r, len(page), n, func() string { return page[len(page)-1].name }); next != nil {
			out["keypairs_links"] = next
		}
	}
	return rest.OK(out)
}

func (s *Service) keypairCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, keypairSchema(r.Version))
	if err != nil {
		return nil, err
	}
	d = d.Dict("keypair")
	k := &keyPair{user: r.Caller.UserID, name: strings.TrimSpace(d.String("name")), key: d.String("public_key"), created: time.Now()}
	if id := d.String("user_id"); id != "" {
		k.user = id
	}
	if err := allow(r.Caller.Admin() || k.user == r.Caller.UserID, "os-keypairs:create"); err != nil {
		return nil, err
	}
	if d.String("type") == "x509" {
		return nil, badRequest("Keypair data is invalid: certificates are not supported by this cloud")
	}
	private := ""
	if d.Has("public_key") {
		k.fingerprint, err = fingerprint(k.key)
	} else {
		private, err = k.generate()
	}
	if err != nil {
		return nil, err
	}
	if err := s.addKeypair(ctx, k, r.Caller.ProjectID); err != nil {
		return nil, err
	}
	v := map[string]any{"name": k.name, "public_key": k.key, "fingerprint": k.fingerprint, "user_id": k.user}
	if private != "" {
		v["private_key"] = private
	}
	out := &rest.Response{Status: http.StatusOK, Body: map[string]any{"keypair": v}}
	if r.Version.AtLeast(2, 2) {
		v["type"] = "ssh"
		out.Status = http.StatusCreated
	}
	return out, nil
}

// fingerprint reads a public key as OpenSSH writes it.
func fingerprint(key string) (string, error) {
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
	if err != nil {
		return "", badRequest("Keypair data is invalid: failed to generate fingerprint")
	}
	return ssh.FingerprintLegacyMD5(public), nil
}

// generate makes a new key and returns the private one in PEM.
func (k *keyPair) generate() (string, error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return "", fmt.Errorf("generate key: %w", err)
	}
	public, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		return "", fmt.Errorf("generate key: %w", err)
	}
	k.key = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + " Generated-by-Nova"
	k.fingerprint = ssh.FingerprintLegacyMD5(public)
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})), nil
}

func (s *Service) keypairShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	user, err := keyUser(r, "show")
	if err != nil {
		return nil, err
	}
	k, err := s.keypair(ctx, user, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	v := map[string]any{
		"name": k.name, "public_key": k.key, "fingerprint": k.fingerprint, "user_id": k.user, "id": k.id,
		"created_at": k.created.Format(secondsWithZeros), "updated_at": nil, "deleted": false, "deleted_at": nil,
	}
	if r.Version.AtLeast(2, 2) {
		v["type"] = "ssh"
	}
	return rest.OK(map[string]any{"keypair": v})
}

func (s *Service) keypairDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	user, err := keyUser(r, "delete")
	if err != nil {
		return nil, err
	}
	k, err := s.keypair(ctx, user, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if err := s.exec(ctx, "DELETE FROM keypairs WHERE id = ?", k.id); err != nil {
		return nil, err
	}
	if r.Version.AtLeast(2, 2) {
		return empty(http.StatusNoContent)
	}
	return empty(http.StatusAccepted)
}

// addKeypair stores a key if the quota of the project that the caller works in
// has room.
func (s *Service) addKeypair(ctx context.Context, k *keyPair, project string) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		limits, err := s.limits(ctx, tx, project)
		if err != nil {
			return err
		}
		var used int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM keypairs WHERE user = ?", k.user).Scan(&used); err != nil {
			return err
		}
		if over(limits["key_pairs"], used, 1) {
			return forbidden("Quota exceeded, too many key pairs.")
		}
		err = tx.QueryRowContext(ctx, "SELECT 1 FROM keypairs WHERE user = ? AND name = ?", k.user, k.name).Scan(&used)
		if !errors.Is(err, sql.ErrNoRows) {
			if err == nil {
				err = conflict("Key pair '%s' already exists.", k.name)
			}
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO keypairs (user, name, fingerprint, public_key, created_at) VALUES (?, ?, ?, ?, ?)",
			k.user, k.name, k.fingerprint, k.key, now())
		return err
	})
}

func (s *Service) keypair(ctx context.Context, user, name string) (*keyPair, error) {
	all, err := s.keypairs(ctx, "WHERE user = ? AND name = ?", user, name)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, notFound("Keypair %s not found for user %s", name, user)
	}
	return all[0], nil
}

func (s *Service) keypairs(ctx context.Context, tail string, args ...any) (out []*keyPair, err error) {
	err = s.rows(ctx, func(rows *sql.Rows) error {
		k, created := &keyPair{}, ""
		if err := rows.Scan(&k.id, &k.user, &k.name, &k.fingerprint, &k.key, &created); err != nil {
			return err
		}
		k.created = parseTime(created)
		out = append(out, k)
		return nil
	}, "SELECT id, user, name, fingerprint, public_key, created_at FROM keypairs "+tail, args...)
	return out, err
}
