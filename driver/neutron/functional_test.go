//go:build functional

package neutron_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/neutron"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// The tests of this file run against a real Neutron: OS_AUTH_URL (default
// http://127.0.0.1:5000/v3), users nova and demo with the password OS_PASSWORD
// (default bench), a network "private" of project demo, and a linuxbridge agent
// on host NEUTRON_HOST (default bench).

func env(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

func realSession(t *testing.T, user, project string) *openstack.Session {
	t.Helper()
	s, err := openstack.NewSession(openstack.Options{
		AuthURL: env("OS_AUTH_URL", "http://127.0.0.1:5000/v3"), Username: user, Password: env("OS_PASSWORD", "bench"),
		ProjectName: project, UserDomainID: "default", ProjectDomainID: "default",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRealNeutron(t *testing.T) {
	service := realSession(t, "nova", "service")
	token, err := realSession(t, "demo", "demo").Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rest := service.Service("network", service)
	client := neutron.New(rest, neutron.Options{}, zerolog.Nop())
	asUser := openstack.UserAuth{Token: token, RequestID: "req-" + uuid.NewString()}
	var nets struct {
		Networks []struct {
			ID     string
			Tenant string `json:"tenant_id"`
		}
	}
	err = rest.Do(t.Context(), asUser, openstack.Request{Method: http.MethodGet, Path: "/v2.0/networks", Query: url.Values{"name": {"private"}}, Into: &nets})
	if err != nil || len(nets.Networks) == 0 {
		t.Fatalf("network private: %v, %d", err, len(nets.Networks))
	}
	net := nets.Networks[0]
	req := neutron.AllocateRequest{
		InstanceUUID: uuid.NewString(), ProjectID: net.Tenant, AvailabilityZone: "nova", Hostname: "neutron-test",
		Host: env("NEUTRON_HOST", "bench"), Networks: []neutron.NetworkRequest{{NetworkID: net.ID}}, Auth: asUser,
	}
	gone := func() {
		t.Helper()
		if info, err := client.Info(t.Context(), neutron.InfoRequest{InstanceUUID: req.InstanceUUID}); err != nil || len(info) != 0 {
			t.Errorf("ports are left: %v %v", info, err)
		}
	}
	t.Run("bound", func(t *testing.T) {
		start := time.Now()
		res, err := client.Allocate(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("allocated in %v", time.Since(start))
		if len(res.Info) != 1 || res.Info[0].Type != "bridge" || len(res.Info[0].Network.Subnets) == 0 {
			t.Errorf("info %s", res.Info.Text())
		}
		start = time.Now()
		info, err := client.Info(t.Context(), neutron.InfoRequest{InstanceUUID: req.InstanceUUID, Known: res.Info})
		t.Logf("described in %v: %s", time.Since(start), info.Text())
		if err != nil || len(info) != 1 || info[0].ID != res.Info[0].ID || info[0].Network.Bridge == nil {
			t.Errorf("%v %v", info, err)
		}
		start = time.Now()
		if err := client.Deallocate(t.Context(), neutron.DeallocateRequest{InstanceUUID: req.InstanceUUID, Known: info}); err != nil {
			t.Error(err)
		}
		t.Logf("deallocated in %v", time.Since(start))
		gone()
	})
	t.Run("as the user", func(t *testing.T) {
		two := neutron.New(rest, neutron.Options{UserCreatesPorts: true}, zerolog.Nop())
		start := time.Now()
		if _, err := two.Allocate(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		t.Logf("allocated in %v", time.Since(start))
		if err := two.Deallocate(t.Context(), neutron.DeallocateRequest{InstanceUUID: req.InstanceUUID}); err != nil {
			t.Error(err)
		}
		gone()
	})
	t.Run("no agent", func(t *testing.T) {
		bad := req
		bad.Host = "fake-none"
		_, err := client.Allocate(t.Context(), bad)
		if !neutron.Is(err, neutron.PortBindingFailed) {
			t.Errorf("got %v", err)
		}
		t.Log(errdefs.PublicText(err, ""))
		gone()
	})
	t.Run("fixed address outside", func(t *testing.T) {
		bad := req
		bad.Networks = []neutron.NetworkRequest{{NetworkID: net.ID, Address: "192.0.2.200"}}
		if _, err := client.Allocate(t.Context(), bad); !neutron.Is(err, neutron.InvalidInput) {
			t.Errorf("got %v", err)
		}
		gone()
	})
	t.Run("quota", func(t *testing.T) {
		// A project of its own, so that nobody else meets the limit.
		bad := req
		bad.ProjectID, bad.Auth.Token = strings.ReplaceAll(uuid.NewString(), "-", ""), ""
		limitPorts(t, rest, bad.ProjectID)
		if _, err := client.Allocate(t.Context(), bad); !neutron.Is(err, neutron.PortLimitExceeded) {
			t.Errorf("got %v", err)
		}
		gone()
	})
	t.Run("port of the user", func(t *testing.T) {
		id := makePort(t, rest, asUser, net.ID)
		own := req
		own.Networks = []neutron.NetworkRequest{{PortID: id}}
		res, err := client.Allocate(t.Context(), own)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Allocate(t.Context(), neutron.AllocateRequest{
			InstanceUUID: uuid.NewString(), ProjectID: net.Tenant, Host: own.Host, Networks: own.Networks, Auth: asUser,
		}); !neutron.Is(err, neutron.PortInUse) {
			t.Errorf("second use: %v", err)
		}
		if err := client.Deallocate(t.Context(), neutron.DeallocateRequest{InstanceUUID: req.InstanceUUID, Known: res.Info}); err != nil {
			t.Error(err)
		}
		gone()
		var out struct {
			Port struct {
				Device string `json:"device_id"`
			}
		}
		if err := rest.Do(t.Context(), asUser, openstack.Request{Method: http.MethodGet, Path: "/v2.0/ports/" + id, Into: &out}); err != nil || out.Port.Device != "" {
			t.Errorf("the user's port: %+v %v", out, err)
		}
	})
}

func makePort(t *testing.T, rest *openstack.Client, user openstack.UserAuth, network string) string {
	t.Helper()
	var out struct{ Port struct{ ID string } }
	err := rest.Do(t.Context(), user, openstack.Request{
		Method: http.MethodPost, Path: "/v2.0/ports", Into: &out,
		Body: map[string]any{"port": map[string]any{"network_id": network, "name": "neutron-functional-test"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rest.Do(context.WithoutCancel(t.Context()), user, openstack.Request{Method: http.MethodDelete, Path: "/v2.0/ports/" + out.Port.ID}); err != nil {
			t.Error(err)
		}
	})
	return out.Port.ID
}

// limitPorts allows the project no ports until the test ends.
func limitPorts(t *testing.T, rest *openstack.Client, project string) {
	t.Helper()
	path := "/v2.0/quotas/" + project
	set := map[string]any{"quota": map[string]any{"port": 0}}
	if err := rest.Do(t.Context(), openstack.UserAuth{}, openstack.Request{Method: http.MethodPut, Path: path, Body: set}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rest.Do(context.WithoutCancel(t.Context()), openstack.UserAuth{}, openstack.Request{Method: http.MethodDelete, Path: path}); err != nil {
			t.Error(err)
		}
	})
}
