package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	ours   = "11111111111111111111111111111111"
	theirs = "22222222222222222222222222222222"
	admins = "33333333333333333333333333333333"
	here   = "cmp1"
	nobody = "7d43a61c-abfe-46aa-a861-b616123f949a"
)

// tokens are callers by the name of their token.
type tokens map[string]*rest.Caller

func (ts tokens) Caller(_ context.Context, token string) (*rest.Caller, error) {
	if c, ok := ts[token]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("token: %w", errdefs.ErrNotFound)
}

var callers = tokens{
	"us":     {ProjectID: ours, Roles: []string{"member", "reader"}},
	"them":   {ProjectID: theirs, Roles: []string{"member", "reader"}},
	"reader": {ProjectID: ours, Roles: []string{"reader"}},
	"admin":  {ProjectID: admins, Roles: []string{"admin", "member", "reader"}},
}

// nova keeps what it is told.
type nova struct {
	mu  sync.Mutex
	got []Event
}

func (n *nova) ServerExternalEvents(_ context.Context, events []Event) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, events...)
	return nil
}

func (n *nova) told(name, port string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.got {
		if e.Name == name && e.Tag == port && e.Status == "completed" && e.ServerID != "" {
			return true
		}
	}
	return false
}

// cloud is a service and who asks it.
type cloud struct {
	t    testing.TB
	s    *Service
	path string
	o    Options
	nova *nova
}

func newCloud(t testing.TB, f Fabric) *cloud {
	t.Helper()
	n := &nova{}
	c := &cloud{t: t, nova: n, path: filepath.Join(t.TempDir(), "network.db")}
	c.o = Options{Path: c.path, Host: here, Auth: callers, Fabric: f, Events: n, Log: zerolog.Nop()}
	c.open()
	return c
}

// open starts the service; it ends with the test, or when the returned function
// is called.
func (c *cloud) open() (stop func()) {
	c.t.Helper()
	s, err := New(c.t.Context(), c.o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.s = s
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx) // ends with ctx
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			<-done
			if err := s.Close(); err != nil {
				c.t.Error(err)
			}
		})
	}
	c.t.Cleanup(stop)
	return stop
}

// answer is what came back.
type answer struct {
	status int
	body   map[string]any
}

func (a answer) kind() string {
	e, _ := a.body["NeutronError"].(map[string]any)
	s, _ := e["type"].(string)
	return s
}

func (a answer) message() string {
	e, _ := a.body["NeutronError"].(map[string]any)
	s, _ := e["message"].(string)
	return s
}

func (c *cloud) ask(token, method, path, body string) answer {
	c.t.Helper()
	r := httptest.NewRequestWithContext(c.t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("X-Auth-Token", token)
	w := httptest.NewRecorder()
	c.s.Handler().ServeHTTP(w, r)
	a := answer{status: w.Code}
	if w.Body.Len() > 0 {
		d := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
		d.UseNumber()
		if err := d.Decode(&a.body); err != nil {
			c.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	return a
}

// must asks and wants success; it returns the one resource of the answer.
func (c *cloud) must(token, method, path, body string) map[string]any {
	c.t.Helper()
	a := c.ask(token, method, path, body)
	if a.status >= http.StatusMultipleChoices {
		c.t.Fatalf("%s %s %s: %d %v", method, path, body, a.status, a.body)
	}
	for _, v := range a.body {
		if m, ok := v.(map[string]any); ok && len(a.body) == 1 {
			return m
		}
	}
	return a.body
}

// id makes something and returns its id.
func (c *cloud) id(token, path, body string) string {
	c.t.Helper()
	id, _ := c.must(token, "POST", "/v2.0/"+path, body)["id"].(string)
	return id
}

// list returns the things of a list.
func (c *cloud) list(token, path string) []map[string]any {
	c.t.Helper()
	a := c.ask(token, "GET", "/v2.0/"+path, "")
	if a.status != http.StatusOK {
		c.t.Fatalf("list %s: %d %v", path, a.status, a.body)
	}
	var out []map[string]any
	for name, v := range a.body {
		if strings.HasSuffix(name, "_links") {
			continue
		}
		items, _ := v.([]any)
		for _, i := range items {
			m, _ := i.(map[string]any)
			out = append(out, m)
		}
	}
	return out
}

// refused wants an error of that status and type.
func (c *cloud) refused(status int, kind, token, method, path, body string) answer {
	c.t.Helper()
	a := c.ask(token, method, path, body)
	if a.status != status || a.kind() != kind {
		c.t.Errorf("%s %s %s %s: %d %v, want %d %s", token, method, path, body, a.status, a.body, status, kind)
	}
	return a
}

// until waits for something that happens elsewhere.
func (c *cloud) until(what string, ok func() bool) {
	c.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			c.t.Fatal("not in time: " + what)
		}
	}
}

func obj(name, format string, args ...any) string {
	return fmt.Sprintf(`{%q: {%s}}`, name, fmt.Sprintf(format, args...))
}

// private makes a network of ours with a subnet.
func (c *cloud) private() (network, subnet string) {
	c.t.Helper()
	network = c.id("us", "networks", obj("network", `"name": "private"`))
	subnet = c.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"`, network))
	return network, subnet
}

// public makes an external network of the administrators' with a subnet.
func (c *cloud) public() (network, subnet string) {
	c.t.Helper()
	network = c.id("admin", "networks", obj("network", `"name": "public", "router:external": true`))
	subnet = c.id("admin", "subnets", obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "172.24.4.0/24", "enable_dhcp": false`, network))
	return network, subnet
}

// instance is the body of a port as a compute service makes it.
func instance(network, server string) string {
	return obj("port", `"network_id": %q, "tenant_id": %q, "device_id": %q, "device_owner": "compute:nova", "binding:host_id": %q`,
		network, ours, server, here)
}
