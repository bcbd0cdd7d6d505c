package neutron_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/gantry-project/gantry/driver/neutron"
	"github.com/gantry-project/gantry/driver/neutron/neutrontest"
	"github.com/gantry-project/gantry/driver/objects"
)

// booted is an instance with one port that Nova has made.
func (w *world) booted(t *testing.T) *neutron.AllocateResult {
	t.Helper()
	res, err := w.client.Allocate(t.Context(), w.request(neutron.NetworkRequest{NetworkID: w.private}))
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (w *world) attach(t *testing.T, known objects.NetworkInfo, nets ...neutron.NetworkRequest) (*neutron.AttachResult, error) {
	return w.client.Attach(t.Context(), neutron.AttachRequest{AllocateRequest: w.request(nets...), Known: known})
}

func TestAttach(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	first := w.booted(t)
	second := w.AddNetwork(project, "second", nil)
	w.AddSubnet(second, "10.9.0.0/24", nil)
	made, err := w.attach(t, first.Info, neutron.NetworkRequest{NetworkID: second, Address: "10.9.0.50", Tag: "uplink"})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.Info) != 2 || made.Info[0].ID != first.Ports[0].ID || made.Info[1].ID != made.Port.ID || !made.Port.Created || made.Port.Tag != "uplink" {
		t.Fatalf("made %+v of %v", made.Port, made.Info)
	}
	if v := made.Info[1]; v.Network.Subnets[0].IPs[0].Address != "10.9.0.50" || v.Type != "bridge" {
		t.Errorf("described as %+v", v)
	}
	if p := w.Port(made.Port.ID); p["device_owner"] != "compute:nova" || p["binding:host_id"] != host || p["device_id"] != inst {
		t.Errorf("port %v", p)
	}
	users := w.userPort(nil)
	given, err := w.attach(t, made.Info, neutron.NetworkRequest{PortID: users})
	if err != nil || len(given.Info) != 3 || given.Port.Created || !given.Info[2].PreserveOnDelete {
		t.Fatalf("given %+v, %v", given, err)
	}

	// what Nova made is deleted, what the user made is given back
	for id, theirs := range map[string]bool{made.Port.ID: false, users: true} {
		for range 2 {
			if err := w.client.Detach(t.Context(), neutron.DetachRequest{InstanceUUID: inst, PortID: id, Preserve: theirs}); err != nil {
				t.Errorf("Detach: %v", err)
			}
		}
	}
	if p := w.Port(users); w.Port(made.Port.ID) != nil || p == nil || p["device_id"] != "" {
		t.Errorf("after Detach: made %v, given %v", w.Port(made.Port.ID), p)
	}
	if n := len(w.Ports(inst)); n != 1 {
		t.Errorf("%d ports left, want 1", n)
	}
}

// What fails leaves the ports that the instance has, also when Neutron gave no
// answer and what it made has to be looked for.
func TestAttachFails(t *testing.T) {
	other := "99999999-329f-4670-a326-2e1b52c9ef62"
	for name, x := range map[string]struct {
		prepare func(w *world) neutron.NetworkRequest
		want    neutron.Name
	}{
		"a port of this instance": {func(w *world) neutron.NetworkRequest {
			return neutron.NetworkRequest{PortID: w.Ports(inst)[0]["id"].(string)}
		}, neutron.PortInUse},
		"a port of another": {func(w *world) neutron.NetworkRequest {
			return neutron.NetworkRequest{PortID: w.userPort(neutrontest.Resource{"device_id": other})}
		}, neutron.PortInUse},
		"a port of strangers": {func(w *world) neutron.NetworkRequest {
			return neutron.NetworkRequest{PortID: w.userPort(neutrontest.Resource{"tenant_id": foreign})}
		}, neutron.PortNotUsable},
		"no port":    {func(*world) neutron.NetworkRequest { return neutron.NetworkRequest{PortID: other} }, neutron.PortNotFound},
		"no network": {func(*world) neutron.NetworkRequest { return neutron.NetworkRequest{NetworkID: other} }, neutron.NetworkNotFound},
		"quota": {func(w *world) neutron.NetworkRequest {
			w.SetPortQuota(1)
			return neutron.NetworkRequest{NetworkID: w.private}
		}, neutron.PortLimitExceeded},
		"an agent that is away": {func(w *world) neutron.NetworkRequest {
			w.AddHost(host, "binding_failed")
			return neutron.NetworkRequest{NetworkID: w.private}
		}, neutron.PortBindingFailed},
		"an address that is taken": {func(w *world) neutron.NetworkRequest {
			ips, _ := w.Ports(inst)[0]["fixed_ips"].([]any)
			ip, _ := ips[0].(neutrontest.Resource)
			address, _ := ip["ip_address"].(string)
			return neutron.NetworkRequest{NetworkID: w.private, Address: address}
		}, neutron.FixedIPAlreadyInUse},
		"no answer to the creation": {func(w *world) neutron.NetworkRequest {
			w.After(func(c neutrontest.Call) {
				if c.Method == http.MethodPost {
					panic(http.ErrAbortHandler) // made, and the connection dies
				}
			})
			return neutron.NetworkRequest{NetworkID: w.private}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, neutron.Options{})
			first := w.booted(t)
			req := x.prepare(w)
			_, err := w.attach(t, first.Info, req)
			if err == nil || x.want != "" && !neutron.Is(err, x.want) {
				t.Errorf("error %v, want %s", err, x.want)
			}
			left := w.Ports(inst)
			if len(left) != 1 || left[0]["id"] != first.Ports[0].ID {
				t.Errorf("ports left: %v", left)
			}
		})
	}
}

// A project without networks has none to attach.
func TestAttachWithoutAnyNetwork(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	req := w.request()
	req.ProjectID = foreign
	req.Auth.Token = neutrontest.UserToken(foreign)
	_, err := w.client.Attach(t.Context(), neutron.AttachRequest{AllocateRequest: req})
	if !neutron.Is(err, neutron.AttachNoNetwork) {
		t.Errorf("error %v", err)
	}
}

func TestAddAndRemoveAddress(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	first := w.booted(t)
	req := neutron.AddressRequest{
		InfoRequest: neutron.InfoRequest{InstanceUUID: inst, Known: first.Info}, NetworkID: w.private, Auth: w.request().Auth,
	}
	info, err := w.client.AddAddress(t.Context(), req)
	if err != nil || len(info) != 1 || len(info[0].Network.Subnets[0].IPs) != 2 {
		t.Fatalf("AddAddress: %v, %v", info, err)
	}
	req.Address = info[0].Network.Subnets[0].IPs[0].Address
	info, err = w.client.RemoveAddress(t.Context(), req)
	if err != nil || len(info[0].Network.Subnets[0].IPs) != 1 || info[0].Network.Subnets[0].IPs[0].Address == req.Address {
		t.Fatalf("RemoveAddress: %v, %v", info, err)
	}
	if _, err = w.client.RemoveAddress(t.Context(), req); !neutron.Is(err, neutron.FixedIPNotFoundForInstance) {
		t.Errorf("an address that it has no more: %v", err)
	}
	req.NetworkID = w.AddNetwork(project, "other", nil)
	if _, err = w.client.AddAddress(t.Context(), req); !neutron.Is(err, neutron.NetworkNotFoundForInstance) {
		t.Errorf("a network where it has no port: %v", err)
	}
	req.NetworkID = w.private
	w.FailWith(func(c neutrontest.Call) (int, string, string) {
		if c.Method == http.MethodPut {
			return http.StatusConflict, "IpAddressGenerationFailure", "No more IP addresses available."
		}
		return 0, "", ""
	})
	if _, err = w.client.AddAddress(t.Context(), req); !neutron.Is(err, neutron.NoMoreFixedIps) {
		t.Errorf("a subnet that is full: %v", err)
	}
	var named *neutron.Error
	if !errors.As(err, &named) || named.Text() == "" {
		t.Errorf("no text of Nova's in %v", err)
	}
}
