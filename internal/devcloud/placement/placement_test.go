package placement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// callers know three tokens.
type callers struct{}

func (callers) Caller(_ context.Context, token string) (*rest.Caller, error) {
	switch token {
	case "admin":
		return &rest.Caller{Roles: []string{"admin", "member", "reader"}, ProjectID: "p0"}, nil
	case "tenant":
		return &rest.Caller{Roles: []string{"member", "reader"}, ProjectID: "p1"}, nil
	}
	return nil, errdefs.ErrNotFound
}

// api is a service that is asked by HTTP.
type api struct {
	*testing.T
	service *Service
	token   string
}

func start(t *testing.T, path string) *api {
	t.Helper()
	s, err := New(t.Context(), Options{Path: path, Auth: callers{}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &api{t, s, "admin"}
}

// call makes a request and returns its status and body.
func (a *api) call(version, method, path, body string) (int, map[string]any) {
	a.Helper()
	r := httptest.NewRequestWithContext(a.Context(), method, path, strings.NewReader(body))
	r.Header.Set("X-Auth-Token", a.token)
	r.Header.Set("OpenStack-API-Version", "placement "+version)
	w := httptest.NewRecorder()
	a.service.Handler().ServeHTTP(w, r)
	data, err := io.ReadAll(w.Body)
	if err != nil {
		a.Fatal(err)
	}
	var out map[string]any
	if len(data) > 0 {
		if err := json.Unmarshal(data, &out); err != nil {
			a.Fatalf("%s %s: %q: %v", method, path, data, err)
		}
	}
	return w.Code, out
}

// want makes a request at the newest version that must have that status.
func (a *api) want(status int, method, path, body string) map[string]any {
	a.Helper()
	got, out := a.call("1.39", method, path, body)
	if got != status {
		a.Fatalf("%s %s: status %d, want %d: %v", method, path, got, status, out)
	}
	return out
}

// code is placement's code of a refusal.
func code(out map[string]any) string {
	list, _ := out["errors"].([]any)
	if len(list) == 0 {
		return ""
	}
	first, _ := list[0].(map[string]any)
	text, _ := first["code"].(string)
	return text
}

const (
	host    = "aaaaaaaa-0000-4000-8000-000000000001"
	child   = "aaaaaaaa-0000-4000-8000-000000000002"
	other   = "aaaaaaaa-0000-4000-8000-000000000003"
	server1 = "bbbbbbbb-0000-4000-8000-000000000001"
	server2 = "bbbbbbbb-0000-4000-8000-000000000002"
	zone    = "cccccccc-0000-4000-8000-000000000001"
)

// hostWith makes a provider with four processors and 1024 MiB.
func (a *api) hostWith(id, name string) {
	a.Helper()
	a.want(200, "POST", "/resource_providers", fmt.Sprintf(`{"name": %q, "uuid": %q}`, name, id))
	a.want(200, "PUT", "/resource_providers/"+id+"/inventories",
		`{"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 2, "allocation_ratio": 2}, "MEMORY_MB": {"total": 1124, "reserved": 100, "step_size": 64}}}`)
}

func claimOf(provider string, generation string, vcpus, memory int) string {
	return fmt.Sprintf(`{"allocations": {%q: {"resources": {"VCPU": %d, "MEMORY_MB": %d}}}, "project_id": "p1", "user_id": "u1", "consumer_generation": %s, "consumer_type": "INSTANCE"}`,
		provider, vcpus, memory, generation)
}

func TestProvidersAreKeptAndUnique(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	a := start(t, path)
	made := a.want(200, "POST", "/resource_providers", `{"name": "one", "uuid": "`+strings.ReplaceAll(host, "-", "")+`"}`)
	if made["uuid"] != host || made["generation"] != 0.0 || made["root_provider_uuid"] != host || made["parent_provider_uuid"] != nil {
		t.Errorf("made %v", made)
	}
	if got := code(a.want(409, "POST", "/resource_providers", `{"name": "one"}`)); got != codeDuplicate {
		t.Errorf("same name: %s", got)
	}
	a.want(200, "POST", "/resource_providers", `{"name": "below", "uuid": "`+child+`", "parent_provider_uuid": "`+host+`"}`)
	if got := code(a.want(409, "DELETE", "/resource_providers/"+host, "")); got != codeParent {
		t.Errorf("a parent: %s", got)
	}
	again := start(t, path)
	tree := again.want(200, "GET", "/resource_providers?in_tree="+child, "")["resource_providers"].([]any)
	if len(tree) != 2 {
		t.Errorf("tree after a restart: %v", tree)
	}
	a.want(400, "PUT", "/resource_providers/"+host, `{"name": "one", "parent_provider_uuid": "`+child+`"}`)
	a.want(204, "DELETE", "/resource_providers/"+child, "")
	a.want(204, "DELETE", "/resource_providers/"+host, "")
	a.want(404, "GET", "/resource_providers/"+host, "")
}

func TestBadBodiesAreRefused(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	a.hostWith(host, "one")
	for _, body := range []string{``, `[]`, `{`, `{"name": 5}`, `{}`, `{"name": "x", "more": 1}`, `{"name": "` + strings.Repeat("x", 201) + `"}`, `{"name": "x", "uuid": "y"}`} {
		if got := a.want(400, "POST", "/resource_providers", body); code(got) != codeUndefined {
			t.Errorf("%s: %v", body, got)
		}
	}
	for _, inventory := range []string{`{}`, `{"total": 0}`, `{"total": 1, "reserved": 2}`, `{"total": 1, "min_unit": 0}`, `{"total": 1e40}`} {
		a.want(400, "PUT", "/resource_providers/"+host+"/inventories", `{"resource_provider_generation": 1, "inventories": {"VCPU": `+inventory+`}}`)
	}
	a.want(400, "PUT", "/resource_providers/"+host+"/inventories", `{"resource_provider_generation": 1, "inventories": {"NOTHING": {"total": 1}}}`)
	a.want(400, "PUT", "/resource_providers/"+host+"/traits", `{"resource_provider_generation": 1, "traits": ["NO_SUCH"]}`)
	a.want(400, "PUT", "/allocations/"+server1, strings.Replace(claimOf(host, "null", 1, 64), `"VCPU": 1`, `"VCPU": 0`, 1))
	a.want(400, "PUT", "/allocations/none", claimOf(host, "null", 1, 64))
	a.want(400, "PUT", "/allocations/"+server1, claimOf(other, "null", 1, 64))
	if got := a.want(200, "GET", "/resource_providers/"+host, ""); got["generation"] != 1.0 {
		t.Errorf("something has changed: %v", got)
	}
}

func TestGenerationsGuardChanges(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	a.hostWith(host, "one")
	for path, body := range map[string]string{
		"/inventories": `{"resource_provider_generation": 0, "inventories": {}}`,
		"/traits":      `{"resource_provider_generation": 0, "traits": []}`,
		"/aggregates":  `{"resource_provider_generation": 0, "aggregates": []}`,
	} {
		if got := code(a.want(409, "PUT", "/resource_providers/"+host+path, body)); got != codeConcurrent {
			t.Errorf("%s: %s", path, got)
		}
	}
	got := a.want(200, "PUT", "/resource_providers/"+host+"/traits", `{"resource_provider_generation": 1, "traits": ["HW_CPU_X86_VMX"]}`)
	if got["resource_provider_generation"] != 2.0 {
		t.Errorf("after traits: %v", got)
	}
	got = a.want(200, "PUT", "/resource_providers/"+host+"/traits", `{"resource_provider_generation": 2, "traits": ["HW_CPU_X86_VMX"]}`)
	if got["resource_provider_generation"] != 2.0 {
		t.Errorf("after the same traits: %v", got)
	}
}

func TestCapacityIsNeverExceeded(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	a.hostWith(host, "one")
	a.want(204, "PUT", "/allocations/"+server1, claimOf(host, "null", 3, 512))
	if got := code(a.want(409, "PUT", "/allocations/"+server1, claimOf(host, "null", 1, 64))); got != codeConcurrent {
		t.Errorf("stale consumer: %s", got)
	}
	a.want(409, "PUT", "/allocations/"+server2, claimOf(host, "null", 2, 64))   // 5 of 4
	a.want(409, "PUT", "/allocations/"+server2, claimOf(host, "null", 1, 65))   // step
	a.want(409, "PUT", "/allocations/"+server2, claimOf(host, "null", 1, 1024)) // memory
	a.want(204, "PUT", "/allocations/"+server1, claimOf(host, "1", 4, 1024))    // its own does not count twice
	if got := code(a.want(409, "PUT", "/resource_providers/"+host+"/inventories", `{"resource_provider_generation": 3, "inventories": {"VCPU": {"total": 2}}}`)); got != codeInUse {
		t.Errorf("drop what is used: %s", got)
	}
	if got := code(a.want(409, "DELETE", "/resource_providers/"+host, "")); got != codeProviderUsed {
		t.Errorf("delete what is used: %s", got)
	}
	usages := a.want(200, "GET", "/resource_providers/"+host+"/usages", "")["usages"].(map[string]any)
	if usages["VCPU"] != 4.0 || usages["MEMORY_MB"] != 1024.0 {
		t.Errorf("usages %v", usages)
	}
	a.want(204, "DELETE", "/allocations/"+server1, "")
	a.want(404, "DELETE", "/allocations/"+server1, "")
	if got := a.want(200, "GET", "/allocations/"+server1, "")["allocations"].(map[string]any); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestManyConsumersChangeTogetherOrNotAtAll(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	a.hostWith(host, "one")
	a.want(204, "PUT", "/allocations/"+server1, claimOf(host, "null", 4, 64))
	both := fmt.Sprintf(`{%q: {"allocations": {}, "project_id": "p1", "user_id": "u1", "consumer_generation": %%d, "consumer_type": "INSTANCE"}, %q: %s}`,
		server1, server2, claimOf(host, "null", 4, 64))
	a.want(409, "POST", "/allocations", fmt.Sprintf(both, 7))
	a.want(204, "POST", "/allocations", fmt.Sprintf(both, 1)) // a move
	total := a.want(200, "GET", "/usages?project_id=p1", "")["usages"].(map[string]any)["INSTANCE"].(map[string]any)
	if total["VCPU"] != 4.0 || total["consumer_count"] != 1.0 {
		t.Errorf("usages %v", total)
	}
}

func TestCandidates(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	a.hostWith(host, "one")
	a.hostWith(other, "two")
	a.want(200, "POST", "/resource_providers", `{"name": "disk", "uuid": "`+child+`", "parent_provider_uuid": "`+host+`"}`)
	a.want(200, "PUT", "/resource_providers/"+child+"/inventories", `{"resource_provider_generation": 0, "inventories": {"DISK_GB": {"total": 10}}}`)
	a.want(201, "PUT", "/traits/CUSTOM_GANTRY", "")
	a.want(200, "PUT", "/resource_providers/"+other+"/traits", `{"resource_provider_generation": 1, "traits": ["CUSTOM_GANTRY"]}`)
	a.want(200, "PUT", "/resource_providers/"+host+"/aggregates", `{"resource_provider_generation": 1, "aggregates": ["`+zone+`"]}`)
	a.want(204, "PUT", "/allocations/"+server1, claimOf(other, "null", 3, 64))
	for query, want := range map[string]int{
		"resources=VCPU:1":                                                              2,
		"resources=VCPU:1&limit=1":                                                      1,
		"resources=VCPU:2":                                                              1, // the other is full
		"resources=VCPU:5":                                                              0,
		"resources=MEMORY_MB:65":                                                        0, // not a step
		"resources=VCPU:1&required=CUSTOM_GANTRY":                                       1,
		"resources=VCPU:1&required=!CUSTOM_GANTRY":                                      1,
		"resources=VCPU:1&required=in:CUSTOM_GANTRY,HW_CPU_X86_VMX":                     1,
		"resources=VCPU:1&member_of=" + zone:                                            1,
		"resources=VCPU:1&member_of=!" + zone:                                           1,
		"resources=VCPU:1,DISK_GB:5":                                                    1, // over the tree
		"resources1=VCPU:1&resources2=DISK_GB:5&group_policy=isolate":                   1,
		"resources1=VCPU:1&resources2=MEMORY_MB:64&group_policy=isolate":                0,
		"resources1=VCPU:1&resources2=MEMORY_MB:64&group_policy=none":                   2,
		"resources=VCPU:1&root_required=CUSTOM_GANTRY":                                  1,
		"resources_A=VCPU:1&resources_B=DISK_GB:1&group_policy=none&same_subtree=_A,_B": 1,
		"resources=VCPU:1&in_tree=" + child:                                             1,
	} {
		got := a.want(200, "GET", "/allocation_candidates?"+query, "")["allocation_requests"].([]any)
		if len(got) != want {
			t.Errorf("%s: %d candidates, want %d: %v", query, len(got), want, got)
		}
	}
	for _, query := range []string{
		"", "resources=VCPU", "resources=VCPU:0", "resources=VCPU:-1", "resources=VCPU:x", "resources=NONE:1", "resources=VCPU:1&required=NO_SUCH", "resources=VCPU:1&member_of=x",
		"resources=VCPU:1&limit=0", "resources=VCPU:1&what=1", "resources1=VCPU:1&resources2=VCPU:1", "required=CUSTOM_GANTRY", "resources=VCPU:1&group_policy=x",
	} {
		a.want(400, "GET", "/allocation_candidates?"+query, "")
	}
	_, old := a.call("1.10", "GET", "/allocation_candidates?resources=VCPU:4", "")
	if _, isList := old["allocation_requests"].([]any)[0].(map[string]any)["allocations"].([]any); !isList {
		t.Errorf("1.10 wants a list: %v", old)
	}
}

func TestVersionsDecideWhatThereIs(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	for _, c := range []struct {
		version, method, path string
		status                int
	}{
		{"1.5", "GET", "/traits", 404},
		{"1.6", "GET", "/traits", 200},
		{"1.9", "GET", "/allocation_candidates?resources=VCPU:1", 404},
		{"1.0", "DELETE", "/resource_providers/" + host + "/inventories", 405},
		{"1.40", "GET", "/traits", 406},
		{"x", "GET", "/traits", 400},
		{"latest", "GET", "/traits", 200},
		{"1.39", "GET", "/nowhere", 404},
		{"1.39", "PATCH", "/traits", 405},
	} {
		if got, out := a.call(c.version, c.method, c.path, ""); got != c.status {
			t.Errorf("%s %s at %s: %d, want %d: %v", c.method, c.path, c.version, got, c.status, out)
		}
	}
}

func TestOnlyAdministratorsChangeAndATenantSeesItsUsage(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	a.token = "tenant"
	a.want(403, "GET", "/resource_providers", "")
	a.want(403, "PUT", "/traits/CUSTOM_X", "")
	a.want(403, "GET", "/usages?project_id=p2", "")
	a.want(200, "GET", "/usages?project_id=p1", "")
	a.token = "nobody"
	a.want(401, "GET", "/usages?project_id=p1", "")
}

func TestReshapeMovesInventoryWithItsAllocations(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	a.hostWith(host, "one")
	a.want(200, "POST", "/resource_providers", `{"name": "below", "uuid": "`+child+`", "parent_provider_uuid": "`+host+`"}`)
	a.want(204, "PUT", "/allocations/"+server1, claimOf(host, "null", 2, 64))
	moved := fmt.Sprintf(`{"inventories": {%q: {"resource_provider_generation": %%d, "inventories": {"MEMORY_MB": {"total": 1024}}},
		%q: {"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 4}}}},
		"allocations": {%q: {"allocations": {%q: {"resources": {"MEMORY_MB": 64}}, %q: {"resources": {"VCPU": 2}}}, "project_id": "p1", "user_id": "u1", "consumer_generation": 1, "consumer_type": "INSTANCE"}}}`,
		host, child, server1, host, child)
	a.want(409, "POST", "/reshaper", fmt.Sprintf(moved, 9))
	if got := a.want(200, "GET", "/allocations/"+server1, "")["allocations"].(map[string]any); got[child] != nil {
		t.Fatalf("half moved: %v", got)
	}
	a.want(204, "POST", "/reshaper", fmt.Sprintf(moved, 2))
	if got := a.want(200, "GET", "/allocations/"+server1, "")["allocations"].(map[string]any); got[child] == nil || got[host] == nil {
		t.Errorf("not moved: %v", got)
	}
}

func TestTheSchedulersMethods(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	a.hostWith(host, "one")
	ctx := t.Context()
	found, err := a.service.Candidates(ctx, Request{Resources: map[string]int64{"VCPU": 4}})
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	claim := Claim{Consumer: server1, Project: "p1", User: "u1", Type: "INSTANCE", Allocations: found[0].Allocations}
	if err := a.service.Allocate(ctx, claim); err != nil {
		t.Fatal(err)
	}
	claim.Consumer = server2
	if err := a.service.Allocate(ctx, claim); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a second one: %v", err)
	}
	if list, err := a.service.Consumers(ctx, host); err != nil || len(list) != 1 || list[0] != server1 {
		t.Errorf("consumers %v, %v", list, err)
	}
	for range 2 {
		if err := a.service.Free(ctx, server1); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.service.Allocate(ctx, claim); err != nil {
		t.Errorf("after it is free: %v", err)
	}
	if _, err := a.service.Candidates(ctx, Request{Resources: map[string]int64{"VCPU": 1}, Required: []string{"NONE"}}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("unknown trait: %v", err)
	}
}

func FuzzAPI(f *testing.F) {
	f.Add("POST", "/resource_providers", `{"name": "x"}`)
	f.Add("PUT", "/allocations/"+server1, claimOf(host, "null", 1, 64))
	f.Add("GET", "/allocation_candidates?resources=VCPU:1&required=in:A,!B&member_of=in:x", "")
	f.Add("POST", "/reshaper", `{"inventories": {"x": {}}, "allocations": {}}`)
	f.Add("PUT", "/resource_providers/"+host+"/inventories/VCPU", `{"total": 1, "resource_provider_generation": 1}`)
	s, err := New(f.Context(), Options{Path: filepath.Join(f.TempDir(), "db"), Auth: callers{}, Log: zerolog.Nop()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, method, path, body string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://cloud"+path, strings.NewReader(body))
		if err != nil {
			return
		}
		r.Header.Set("X-Auth-Token", "admin")
		r.Header.Set("OpenStack-API-Version", "placement latest")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %s %s: %d %s", method, path, body, w.Code, w.Body)
		}
	})
}

func TestSetAggregate(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "db"))
	a.hostWith(host, "one")
	members := "/resource_providers?member_of=" + zone
	for _, member := range []bool{true, true, false, false} {
		if err := a.service.SetAggregate(t.Context(), host, zone, member); err != nil {
			t.Fatal(err)
		}
		want := 0
		if member {
			want = 1
		}
		if l, _ := a.want(200, "GET", members, "")["resource_providers"].([]any); len(l) != want {
			t.Errorf("%d providers in the aggregate, want %d", len(l), want)
		}
	}
	if err := a.service.SetAggregate(t.Context(), other, zone, true); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a provider that is not there: %v", err)
	}
}
