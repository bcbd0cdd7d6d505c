package neutron_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver/neutron"
	"github.com/gantry-project/gantry/driver/neutron/neutrontest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestAllocateOnePort(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	res, err := w.client.Allocate(t.Context(), w.request(neutron.NetworkRequest{NetworkID: w.private, Tag: "lan"}))
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Info) != 1 || len(res.Ports) != 1 || !res.Ports[0].Created || res.Ports[0].Tag != "lan" {
		t.Fatalf("result %+v", res)
	}
	v := res.Info[0]
	if v.ID != res.Ports[0].ID || v.Type != "bridge" || v.Active || v.PreserveOnDelete || v.DevName != "tap"+v.ID[:11] || *v.Network.Bridge != ("brq" + w.private)[:14] {
		t.Errorf("vif %+v", v)
	}
	if s := v.Network.Subnets; len(s) != 1 || s[0].IPs[0].Address != "10.0.0.3" || s[0].Gateway.Address != "10.0.0.1" || s[0].Meta.DHCPServer != "10.0.0.2" {
		t.Errorf("subnets %+v", s)
	}
	if !v.Network.Meta.Tunneled || v.Network.Meta.PhysicalNetwork != nil || *v.Network.Meta.MTU != 1450 {
		t.Errorf("meta %+v", v.Network.Meta)
	}
	p := w.Port(v.ID)
	want := map[string]any{"device_id": inst, "device_owner": "compute:nova", "tenant_id": project, "binding:host_id": host}
	for k, x := range want {
		if p[k] != x {
			t.Errorf("port %s = %v, want %v", k, p[k], x)
		}
	}
	calls := w.Calls()
	if count(calls, http.MethodPost, "/v2.0/ports") != 1 || count(calls, http.MethodPut, "/v2.0/ports/"+v.ID) != 0 {
		t.Errorf("calls %v", calls)
	}
	if len(calls) != 6 {
		t.Errorf("%d requests for a boot, want 6: %v", len(calls), calls)
	}
	// The extensions are kept.
	if _, err := w.client.Allocate(t.Context(), w.request(neutron.NetworkRequest{NetworkID: w.private})); err != nil {
		t.Fatal(err)
	}
	if n := len(w.Calls()); n != 5 {
		t.Errorf("%d requests for the second boot, want 5", n)
	}
}

func TestAllocateAsTheUser(t *testing.T) {
	for name, opts := range map[string]neutron.Options{"fixed address": {}, "by option": {UserCreatesPorts: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, opts)
			r := neutron.NetworkRequest{NetworkID: w.private}
			if !opts.UserCreatesPorts {
				r.Address = "10.0.0.50"
			}
			res, err := w.client.Allocate(t.Context(), w.request(r))
			if err != nil {
				t.Fatal(err)
			}
			if a := res.Info[0].Network.Subnets[0].IPs[0].Address; r.Address != "" && a != r.Address {
				t.Errorf("address %s", a)
			}
			for _, c := range w.Calls() {
				if c.Method == http.MethodPost && c.User != project {
					t.Errorf("port created by %q", c.User)
				}
			}
			if p := w.Port(res.Ports[0].ID); p["binding:vif_type"] != "bridge" {
				t.Errorf("port %v", p)
			}
		})
	}
}

func TestAllocateSeveral(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	second := w.AddNetwork(foreign, "shared", neutrontest.Resource{"shared": true, "provider:network_type": "flat", "provider:physical_network": "physnet1"})
	w.AddSubnet(second, "fd00::/64", neutrontest.Resource{"ipv6_address_mode": "slaac", "gateway_ip": nil})
	given := w.userPort(nil)
	res, err := w.client.Allocate(t.Context(), w.request(
		neutron.NetworkRequest{NetworkID: second}, neutron.NetworkRequest{PortID: given}, neutron.NetworkRequest{NetworkID: w.private}))
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Info) != 3 || res.Info[0].Network.ID != second || res.Info[1].ID != given || res.Info[2].Network.ID != w.private {
		t.Fatalf("order %+v", res.Ports)
	}
	if !res.Info[1].PreserveOnDelete || res.Ports[1].Created || res.Info[0].PreserveOnDelete {
		t.Errorf("ownership %+v", res.Ports)
	}
	if string(res.Info[1].Profile) != `{"trusted":"true"}` {
		t.Errorf("profile %s", res.Info[1].Profile)
	}
	s := res.Info[0].Network.Subnets[0]
	if s.Version != 6 || s.Gateway.Address != "" || s.Meta.IPv6AddressMode != "slaac" || *res.Info[0].Network.Meta.PhysicalNetwork != "physnet1" {
		t.Errorf("subnet %+v", s)
	}
	if p := w.Port(given); p["device_id"] != inst || p["binding:host_id"] != host {
		t.Errorf("given port %v", p)
	}
	if err := w.client.Deallocate(t.Context(), neutron.DeallocateRequest{InstanceUUID: inst, Known: res.Info}); err != nil {
		t.Fatal(err)
	}
	if left := w.Ports(inst); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if p := w.Port(given); p == nil || p["device_owner"] != "" || p["binding:vif_type"] != "unbound" || p["binding:host_id"] != "" {
		t.Errorf("given port %v", p)
	}
	if err := w.client.Deallocate(t.Context(), neutron.DeallocateRequest{InstanceUUID: inst}); err != nil {
		t.Errorf("nothing there: %v", err)
	}
}

func TestAllocateNoneNamed(t *testing.T) {
	t.Run("the only one", func(t *testing.T) {
		w := newWorld(t, neutron.Options{})
		w.AddNetwork(foreign, "theirs", nil)
		res, err := w.client.Allocate(t.Context(), w.request())
		if err != nil || len(res.Info) != 1 || res.Info[0].Network.ID != w.private {
			t.Errorf("%+v %v", res, err)
		}
	})
	t.Run("ambiguous", func(t *testing.T) {
		w := newWorld(t, neutron.Options{})
		w.AddSubnet(w.AddNetwork(project, "second", nil), "10.1.0.0/24", nil)
		_, err := w.client.Allocate(t.Context(), w.request())
		if !neutron.Is(err, neutron.NetworkAmbiguous) {
			t.Errorf("%v", err)
		}
	})
	t.Run("there is none", func(t *testing.T) {
		w := newWorld(t, neutron.Options{})
		req := w.request()
		req.ProjectID = foreign
		req.Auth.Token = neutrontest.UserToken(foreign)
		res, err := w.client.Allocate(t.Context(), req)
		if err != nil || res.Info == nil || len(res.Info) != 0 {
			t.Errorf("%+v %v", res, err)
		}
	})
	t.Run("none asked", func(t *testing.T) {
		w := newWorld(t, neutron.Options{})
		res, err := w.client.Allocate(t.Context(), w.request(neutron.NetworkRequest{NetworkID: neutron.NetworkNone}))
		if err != nil || len(res.Info) != 0 || len(w.Calls()) != 0 {
			t.Errorf("%+v %v", res, err)
		}
	})
	t.Run("auto", func(t *testing.T) {
		w := newWorld(t, neutron.Options{})
		auto := w.AddNetwork(foreign, "auto", neutrontest.Resource{"auto": true, "admin_state_up": false})
		w.AddSubnet(auto, "10.2.0.0/24", nil)
		req := w.request(neutron.NetworkRequest{NetworkID: neutron.NetworkAuto})
		req.ProjectID = foreign
		req.Auth.Token = neutrontest.UserToken(foreign)
		res, err := w.client.Allocate(t.Context(), req)
		if err != nil || len(res.Info) != 1 || res.Info[0].Network.ID != auto {
			t.Errorf("%+v %v", res, err)
		}
		req.ProjectID, req.Auth.Token = "33", neutrontest.UserToken("33")
		if _, err := w.client.Allocate(t.Context(), req); !neutron.Is(err, neutron.UnableToAutoAllocateNetwork) {
			t.Errorf("%v", err)
		}
	})
}

func TestSecurityGroups(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	web := w.Add("security_groups", neutrontest.Resource{"name": "web", "tenant_id": project})
	w.Add("security_groups", neutrontest.Resource{"name": "twice", "tenant_id": project})
	w.Add("security_groups", neutrontest.Resource{"name": "twice", "tenant_id": project})
	theirs := w.Add("security_groups", neutrontest.Resource{"name": "theirs", "tenant_id": foreign})
	bare := w.AddNetwork(project, "bare", neutrontest.Resource{"port_security_enabled": false})
	cases := []struct {
		name   string
		groups []string
		net    string
		want   neutron.Name
	}{
		{"by name", []string{"web"}, w.private, ""},
		{"by id", []string{web}, w.private, ""},
		{"of another project", []string{theirs}, w.private, neutron.SecurityGroupNotFound},
		{"unknown", []string{"nope"}, w.private, neutron.SecurityGroupNotFound},
		{"ambiguous", []string{"twice"}, w.private, neutron.NoUniqueMatch},
		{"without port security", []string{"web"}, bare, neutron.SecurityGroupCannotBeApplied},
		{"default without port security", []string{"default"}, bare, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			req := w.request(neutron.NetworkRequest{NetworkID: c.net})
			req.SecurityGroups = c.groups
			res, err := w.client.Allocate(t.Context(), req)
			if c.want != "" {
				if !neutron.Is(err, c.want) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := w.Port(res.Ports[0].ID)["security_groups"].([]any); c.groups[0] != "default" && got[0] != web {
				t.Errorf("groups %v", got)
			}
		})
	}
}

func TestAllocateFailures(t *testing.T) {
	cases := []struct {
		name  string
		setup func(w *world) neutron.AllocateRequest
		want  neutron.Name
		class error
		text  string
	}{
		{"no agent", func(w *world) neutron.AllocateRequest {
			r := w.request(neutron.NetworkRequest{NetworkID: w.private}, neutron.NetworkRequest{PortID: w.userPort(nil)})
			r.Host = "fake-none"
			return r
		}, neutron.PortBindingFailed, errdefs.ErrUnavailable, "check neutron logs"},
		{"quota", func(w *world) neutron.AllocateRequest {
			w.SetPortQuota(1)
			n := neutron.NetworkRequest{NetworkID: w.private}
			return w.request(n, n, n)
		}, neutron.PortLimitExceeded, errdefs.ErrExhausted, "Maximum number of ports exceeded"},
		{"no addresses", func(w *world) neutron.AllocateRequest {
			small := w.AddNetwork(project, "small", nil)
			w.AddSubnet(small, "10.9.0.0/30", nil)
			return w.request(neutron.NetworkRequest{NetworkID: w.private}, neutron.NetworkRequest{NetworkID: small})
		}, neutron.NoMoreFixedIps, errdefs.ErrExhausted, "No fixed IP addresses available"},
		{"address in use", func(w *world) neutron.AllocateRequest {
			w.userPort(nil)
			return w.request(neutron.NetworkRequest{NetworkID: w.private, Address: "10.0.0.77"})
		}, neutron.FixedIPAlreadyInUse, errdefs.ErrConflict, "10.0.0.77"},
		{"address elsewhere", func(w *world) neutron.AllocateRequest {
			return w.request(neutron.NetworkRequest{NetworkID: w.private, Address: "192.0.2.1"})
		}, neutron.InvalidInput, errdefs.ErrInvalid, "192.0.2.1"},
		{"another's network", func(w *world) neutron.AllocateRequest {
			n := w.AddNetwork(foreign, "theirs", nil)
			w.AddSubnet(n, "10.3.0.0/24", nil)
			return w.request(neutron.NetworkRequest{NetworkID: n})
		}, neutron.NetworkNotFound, errdefs.ErrNotFound, "could not be found"},
		{"external network", func(w *world) neutron.AllocateRequest {
			n := w.AddNetwork(foreign, "public", neutrontest.Resource{"router:external": true})
			w.AddSubnet(n, "10.3.0.0/24", nil)
			return w.request(neutron.NetworkRequest{NetworkID: n})
		}, neutron.ExternalNetworkAttachForbidden, errdefs.ErrForbidden, "external network"},
		{"no subnet", func(w *world) neutron.AllocateRequest {
			return w.request(neutron.NetworkRequest{NetworkID: w.AddNetwork(project, "bare", nil)})
		}, neutron.SecurityGroupCannotBeApplied, errdefs.ErrInvalid, "subnet associated"},
		{"no such port", func(w *world) neutron.AllocateRequest {
			return w.request(neutron.NetworkRequest{NetworkID: w.private}, neutron.NetworkRequest{PortID: "nope"})
		}, neutron.PortNotFound, errdefs.ErrNotFound, "nope"},
		{"another's port", func(w *world) neutron.AllocateRequest {
			return w.request(neutron.NetworkRequest{PortID: w.userPort(neutrontest.Resource{"tenant_id": foreign})})
		}, neutron.PortNotUsable, errdefs.ErrInvalid, "not usable"},
		{"port in use", func(w *world) neutron.AllocateRequest {
			return w.request(neutron.NetworkRequest{PortID: w.userPort(neutrontest.Resource{"device_id": "other"})})
		}, neutron.PortInUse, errdefs.ErrConflict, "still in use"},
		{"port twice", func(w *world) neutron.AllocateRequest {
			n := neutron.NetworkRequest{PortID: w.userPort(nil)}
			return w.request(n, n)
		}, neutron.PortInUse, errdefs.ErrConflict, "still in use"},
		{"vnic type", func(w *world) neutron.AllocateRequest {
			return w.request(neutron.NetworkRequest{PortID: w.userPort(neutrontest.Resource{"binding:vnic_type": "direct"})})
		}, neutron.PortBindingFailed, errdefs.ErrUnavailable, "Binding failed"},
		{"dns name of another", func(w *world) neutron.AllocateRequest {
			w.SetExtensions("dns-integration")
			return w.request(neutron.NetworkRequest{PortID: w.userPort(neutrontest.Resource{"dns_name": "other"})})
		}, neutron.PortNotUsableDNS, errdefs.ErrInvalid, "does not match"},
		{"neutron fails", func(w *world) neutron.AllocateRequest {
			w.FailWith(func(c neutrontest.Call) (int, string, string) {
				if c.Method == http.MethodPost {
					return 500, "HTTPInternalServerError", "boom"
				}
				return 0, "", ""
			})
			return w.request(neutron.NetworkRequest{NetworkID: w.private})
		}, "", errdefs.ErrUnavailable, ""},
		{"neutron fails to describe", func(w *world) neutron.AllocateRequest {
			w.FailWith(func(c neutrontest.Call) (int, string, string) {
				if c.Path == "/v2.0/subnets" {
					return 500, "HTTPInternalServerError", "boom"
				}
				return 0, "", ""
			})
			return w.request(neutron.NetworkRequest{NetworkID: w.private})
		}, "", errdefs.ErrUnavailable, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, neutron.Options{})
			req := c.setup(w)
			_, err := w.client.Allocate(t.Context(), req)
			if (c.want != "" && !neutron.Is(err, c.want)) || !errors.Is(err, c.class) {
				t.Fatalf("got %v", err)
			}
			if text := errdefs.PublicText(err, ""); !strings.Contains(text, c.text) {
				t.Errorf("public text %q", text)
			}
			if left := w.Ports(inst); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			for _, r := range req.Networks {
				if p := w.Port(r.PortID); p != nil && p["tenant_id"] == project && p["device_id"] != "other" && p["binding:host_id"] != "" && p["binding:host_id"] != nil {
					t.Errorf("user's port is not as before: %v", p)
				}
			}
		})
	}
}

func TestAnswerLost(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	w.After(func(c neutrontest.Call) {
		if c.Method == http.MethodPost {
			panic(http.ErrAbortHandler)
		}
	})
	_, err := w.client.Allocate(t.Context(), w.request(neutron.NetworkRequest{NetworkID: w.private}))
	if !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	if left := w.Ports(inst); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCancelled(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	w.After(func(c neutrontest.Call) {
		if c.Method == http.MethodPost {
			cancel()
		}
	})
	_, err := w.client.Allocate(ctx, w.request(neutron.NetworkRequest{NetworkID: w.private}))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if left := w.Ports(inst); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDNS(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	w.SetExtensions("binding", "dns-integration")
	domain := w.AddNetwork(project, "zone", neutrontest.Resource{"dns_domain": "example.org."})
	w.AddSubnet(domain, "10.4.0.0/24", nil)
	res, err := w.client.Allocate(t.Context(), w.request(neutron.NetworkRequest{NetworkID: w.private}, neutron.NetworkRequest{NetworkID: domain}))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range res.Ports {
		if n := w.Port(p.ID)["dns_name"]; n != "vm-1" {
			t.Errorf("dns_name %v", n)
		}
	}
	for _, c := range w.Calls() {
		if c.Method == http.MethodPut && (c.User != project || c.Body["dns_name"] != "vm-1") {
			t.Errorf("update %+v", c)
		}
	}
}
