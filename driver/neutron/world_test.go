package neutron_test

import (
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/neutron"
	"github.com/gantry-project/gantry/driver/neutron/neutrontest"
	"github.com/gantry-project/gantry/internal/openstack"
)

const (
	project = "11111111111111111111111111111111"
	foreign = "22222222222222222222222222222222"
	inst    = "2d8ce347-329f-4670-a326-2e1b52c9ef62"
	host    = "cmp1"
)

// world is a Neutron with a private network of the project, and a client.
type world struct {
	*neutrontest.Server
	client          *neutron.Client
	private, subnet string
}

func newWorld(t *testing.T, opts neutron.Options) *world {
	t.Helper()
	s := neutrontest.New()
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	session, err := openstack.NewSession(openstack.Options{AuthType: "none", EndpointOverride: web.URL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Server: s, client: neutron.New(session.Service("network", nil), opts, zerolog.Nop())}
	s.AddHost(host, "bridge")
	w.private = s.AddNetwork(project, "private", nil)
	w.subnet = s.AddSubnet(w.private, "10.0.0.0/24", nil)
	return w
}

func (w *world) request(nets ...neutron.NetworkRequest) neutron.AllocateRequest {
	return neutron.AllocateRequest{
		InstanceUUID: inst, ProjectID: project, AvailabilityZone: "nova", Hostname: "vm-1", Host: host,
		Networks: nets, SecurityGroups: []string{"default"},
		Auth: openstack.UserAuth{Token: neutrontest.UserToken(project), RequestID: "req-1"},
	}
}

// userPort makes a port as the user would.
func (w *world) userPort(more neutrontest.Resource) string {
	r := neutrontest.Resource{
		"network_id": w.private, "tenant_id": project, "device_id": "", "device_owner": "", "admin_state_up": true, "status": "DOWN",
		"mac_address": "fa:16:3e:00:00:01", "binding:vnic_type": "normal", "binding:vif_type": "unbound", "binding:profile": neutrontest.Resource{"trusted": "true"},
		"fixed_ips": []any{neutrontest.Resource{"subnet_id": w.subnet, "ip_address": "10.0.0.77"}},
	}
	for k, v := range more {
		r[k] = v
	}
	return w.Add("ports", r)
}

func count(calls []neutrontest.Call, method, path string) (n int) {
	for _, c := range calls {
		if c.Method == method && c.Path == path {
			n++
		}
	}
	return n
}

func isClass(err, class error) bool {
	if class == nil {
		return err == nil
	}
	return errors.Is(err, class)
}
