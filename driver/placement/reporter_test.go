package placement_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver/placement"
	"github.com/gantry-project/gantry/driver/placement/placementtest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

func newServer() *placementtest.Server {
	return placementtest.New("COMPUTE_NODE", "COMPUTE_STATUS_DISABLED", "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_TRUSTED_CERTS", "HW_CPU_X86_AVX2")
}

func connect(t *testing.T, h http.Handler) *openstack.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	session, err := openstack.NewSession(openstack.Options{AuthType: "none", EndpointOverride: srv.URL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return session.Service("placement", nil)
}

func TestReporter(t *testing.T) { suite(t, connect(t, newServer())) }

// TestWrites pins the requests that change something, in their order.
func TestWrites(t *testing.T) {
	server := newServer()
	w := world{nil, placement.New(connect(t, server))}
	h := w.host(t)
	h.Traits = append(h.Traits, "CUSTOM_HV_CONTAINER")
	w.reconcile(t, h)
	w.reconcile(t, h)
	u := "/resource_providers/" + h.UUID
	want := []string{"POST /resource_providers", "PUT " + u + "/inventories", "PUT /traits/CUSTOM_HV_CONTAINER", "PUT " + u + "/traits"}
	if diff := cmp.Diff(want, server.Writes()); diff != "" {
		t.Error(diff)
	}
}

func TestRequestID(t *testing.T) {
	server := newServer()
	var ids []string
	server.Before(func(r *http.Request) { ids = append(ids, r.Header.Get("X-Openstack-Request-Id")) })
	r := placement.New(connect(t, server))
	if _, err := r.For("req-7").Consumers(t.Context(), "u"); err != nil || len(ids) != 1 || ids[0] != "req-7" {
		t.Error(ids, err)
	}
}

func TestServiceIsAway(t *testing.T) {
	client := connect(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "down", http.StatusServiceUnavailable)
	}))
	r := placement.New(client)
	_, err := r.Reconcile(t.Context(), placement.Wanted{UUID: "u", Name: "n"})
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "reconcile provider u") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Allocations(ctx, "c"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// FuzzAnswers: whatever the other side answers is an error or nothing, and
// never a panic.
func FuzzAnswers(f *testing.F) {
	f.Add(200, []byte(`{"resource_providers":[{"uuid":"u","generation":1}],"inventories":{"VCPU":{"total":1}},"traits":["A"]}`))
	f.Add(409, []byte(`{"errors":[{"code":"placement.concurrent_update"}]}`))
	f.Add(200, []byte(`{"allocations":{"x":{"resources":null}},"traits":null}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		client := connect(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}))
		r := placement.New(client)
		_, _ = r.Reconcile(t.Context(), placement.Wanted{UUID: "u", Name: "n", Traits: []string{"A", "CUSTOM_B"}})
		_, _ = r.Allocations(t.Context(), "c")
		_, _ = r.Consumers(t.Context(), "u")
		_ = r.HealAllocation(t.Context(), "c")
	})
}
