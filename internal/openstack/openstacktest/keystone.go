// Package openstacktest is a small Keystone for tests: it checks passwords,
// issues tokens with a catalog, and can be told to fail.
package openstacktest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Keystone is the identity API v3, as much of it as a service needs to
// authenticate: POST /v3/auth/tokens with a password or an application
// credential. Safe for concurrent use.
type Keystone struct {
	// Passwords by user name, and secrets by application credential id.
	Passwords map[string]string
	// Catalog maps service types to public endpoints.
	Catalog map[string]string
	// Lifetime of a token; default one hour.
	Lifetime time.Duration
	// Gate, if set, is passed by each request before it is answered.
	Gate func()

	mu     sync.Mutex
	issued int               // guarded by mu
	users  map[string]string // guarded by mu: token to user
}

// Issued returns how many tokens were given out.
func (k *Keystone) Issued() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.issued
}

// User returns whose token this is, "" if it is not valid.
func (k *Keystone) User(token string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.users[token]
}

// Revoke makes all tokens invalid.
func (k *Keystone) Revoke() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.users)
}

// Issue gives out a token for a user without asking for a password.
func (k *Keystone) Issue(user string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.issued++
	if k.users == nil {
		k.users = make(map[string]string)
	}
	token := fmt.Sprintf("token-%d-%s", k.issued, user)
	k.users[token] = user
	return token
}

type authRequest struct {
	Auth struct {
		Identity struct {
			Password struct {
				User struct{ Name, ID, Password string }
			}
			Credential struct{ ID, Secret string } `json:"application_credential"`
		}
	}
}

// ServeHTTP implements http.Handler.
func (k *Keystone) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/v3/auth/tokens" {
		http.NotFound(w, r)
		return
	}
	if k.Gate != nil {
		k.Gate()
	}
	var req authRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := req.Auth.Identity
	user, secret := id.Password.User.Name+id.Password.User.ID, id.Password.User.Password
	if id.Credential.ID != "" {
		user, secret = id.Credential.ID, id.Credential.Secret
	}
	w.Header().Set("Content-Type", "application/json")
	if want, ok := k.Passwords[user]; !ok || want != secret {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}`))
		return
	}
	life := k.Lifetime
	if life == 0 {
		life = time.Hour
	}
	w.Header().Set("X-Subject-Token", k.Issue(user))
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"token": map[string]any{
		"expires_at": time.Now().Add(life).UTC().Format("2006-01-02T15:04:05.000000Z"),
		"catalog":    k.catalog(),
	}})
}

func (k *Keystone) catalog() []map[string]any {
	out := []map[string]any{}
	for kind, url := range k.Catalog {
		out = append(out, map[string]any{"type": kind, "name": kind, "endpoints": []map[string]any{
			{"interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": url},
		}})
	}
	return out
}
