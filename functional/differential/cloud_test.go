//go:build functional

package differential

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// cloud is one of the two.
type cloud struct {
	name, authURL string
	tokens        map[string]string // by who
	endpoints     map[string]string // by type of service
	vars          map[string]string
	own           map[string]string // those of vars that every list has
	client        *http.Client
}

// forget drops what an earlier list has kept.
func (c *cloud) forget() { c.vars = maps.Clone(c.own) }

// account is who may be asked for.
type account struct{ user, project, password string }

// open logs in.
func open(ctx context.Context, name, authURL string, accounts map[string]account) (*cloud, error) {
	c := &cloud{
		name: name, authURL: strings.TrimSuffix(authURL, "/"), tokens: map[string]string{}, endpoints: map[string]string{},
		vars: map[string]string{}, client: &http.Client{Timeout: time.Minute},
	}
	for who, a := range accounts {
		domain := map[string]any{"id": "default"}
		body, err := json.Marshal(map[string]any{"auth": map[string]any{
			"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{"name": a.user, "domain": domain, "password": a.password}}},
			"scope":    map[string]any{"project": map[string]any{"name": a.project, "domain": domain}},
		}})
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.authURL+"/auth/tokens", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/json")
		res, err := c.client.Do(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := c.login(res, who, a); err != nil {
			return nil, fmt.Errorf("%s: log in as %s: %w", name, a.user, err)
		}
	}
	c.own = maps.Clone(c.vars)
	return c, nil
}

func (c *cloud) login(res *http.Response, who string, a account) error {
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusCreated {
		return fmt.Errorf("status %d: %s", res.StatusCode, data)
	}
	var out struct {
		Token struct {
			Project, User struct{ ID string }
			Catalog       []struct {
				Type      string
				Endpoints []struct{ Interface, URL string }
			}
		}
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return err
	}
	c.tokens[who] = res.Header.Get("X-Subject-Token")
	c.vars[who+"_project"], c.vars[who+"_user"] = out.Token.Project.ID, out.Token.User.ID
	c.vars[who+"_password"] = a.password
	for _, s := range out.Token.Catalog {
		for _, e := range s.Endpoints {
			if e.Interface == "public" {
				c.endpoints[s.Type] = strings.TrimSuffix(e.URL, "/")
			}
		}
	}
	return nil
}

// roots are the parts of endpoints that the catalogs of clouds do not agree on.
func (c *cloud) endpoint(service string) (string, error) {
	e, ok := c.endpoints[service]
	if service == "identity" {
		e, ok = c.authURL, true
	}
	if !ok {
		return "", fmt.Errorf("%s has no service %s", c.name, service)
	}
	switch service {
	case "image":
		e = strings.TrimSuffix(e, "/v2") + "/v2"
	case "network":
		e = strings.TrimSuffix(e, "/v2.0") + "/v2.0"
	case "compute":
		if i := strings.Index(e, "/v2.1"); i >= 0 {
			e = e[:i]
		}
		e += "/v2.1"
	}
	return e, nil
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	raw    []byte
	body   any // nil when it is no JSON
}

// expand puts in the values that were kept. Longer names go first.
func (c *cloud) expand(text string) string {
	for name, value := range sortedByLength(c.vars) {
		text = strings.ReplaceAll(text, "$"+name, value)
	}
	return text
}

func (c *cloud) ask(ctx context.Context, q *call) (*reply, error) {
	e, err := c.endpoint(q.service)
	if err != nil {
		return nil, err
	}
	path := c.expand(q.path)
	target := e + path
	if strings.HasPrefix(path, "//") {
		u, err := url.Parse(e)
		if err != nil {
			return nil, err
		}
		target = strings.TrimSuffix(strings.TrimSuffix(e, "/v2.0"), "/v2")
		target = strings.TrimSuffix(strings.TrimSuffix(target, "/v2.1"), "/v3") + path[1:]
		_ = u
	}
	r, err := http.NewRequestWithContext(ctx, q.method, target, strings.NewReader(c.expand(q.body)))
	if err != nil {
		return nil, err
	}
	if t := c.tokens[q.who]; t != "" {
		r.Header.Set("X-Auth-Token", t)
	}
	if q.body != "" && !q.raw {
		r.Header.Set("Content-Type", "application/json")
	}
	if q.version != "" {
		r.Header.Set("OpenStack-API-Version", q.service+" "+q.version)
		if q.service == "compute" {
			r.Header.Set("X-OpenStack-Nova-API-Version", q.version)
		}
	}
	for k, v := range q.header {
		r.Header.Set(k, c.expand(v))
	}
	res, err := c.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	out := &reply{status: res.StatusCode, header: res.Header}
	if out.raw, err = io.ReadAll(res.Body); err != nil {
		return nil, err
	}
	if json.Unmarshal(out.raw, &out.body) != nil {
		out.body = nil
	}
	return out, nil
}

// do asks, again if that is wanted, and keeps values.
func (c *cloud) do(ctx context.Context, q *call) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := c.ask(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", c.name, q.name(), err)
		}
		if q.untilPath == "" || fmt.Sprint(lookup(out.body, q.untilPath)) == q.untilValue {
			for name, path := range q.set {
				value := fmt.Sprint(lookup(out.body, path))
				if h, ok := strings.CutPrefix(path, "header:"); ok {
					value = out.header.Get(h)
				}
				c.vars[name] = value
			}
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %s:%d: %s: %s never was %s: %s", c.name, q.file, q.line, q.name(), q.untilPath, q.untilValue, out.raw)
		case <-tick.C:
		}
	}
}

// lookup finds a value by a path like "servers.0.id".
func lookup(v any, path string) any {
	for part := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(at) {
				return nil
			}
			v = at[i]
		default:
			return nil
		}
	}
	return v
}
