package metadata_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/metadata"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// addresses are who has which address behind which router.
type addresses map[string][2]string

func (a addresses) InstanceIn(ctx context.Context, network string, address netip.Addr) (string, string, error) {
	return a.InstanceBehind(ctx, network, address)
}

func (a addresses) InstanceBehind(_ context.Context, router string, address netip.Addr) (string, string, error) {
	who, ok := a[router+" "+address.String()]
	if !ok {
		return "", "", errdefs.ErrNotFound
	}
	return who[0], who[1], nil
}

type groups struct{}

func (groups) GroupNames(context.Context, string) ([]string, error) {
	return []string{"default", "web"}, nil
}

// rig is a service with two instances behind router r: 10.0.0.5 has all there
// is, 10.0.0.6 nothing. 10.0.0.7 is a port that its owner says is the first
// instance's, and is not.
type rig struct {
	t       testing.TB
	store   *cell.Store
	service *metadata.Service
	proxy   *metadata.Proxy
	full    objects.Instance
	bare    objects.Instance
}

const network = `[{"id": "port-1", "address": "fa:16:3e:00:00:05", "type": "bridge", "devname": "tapport-1", "network": {
	"id": "net-1", "label": "private", "meta": {"mtu": 1450},
	"subnets": [
		{"cidr": "10.0.0.0/26", "version": 4, "gateway": {"address": "10.0.0.1", "version": 4}, "dns": [{"address": "192.0.2.53", "version": 4}],
		 "ips": [{"address": "10.0.0.5", "version": 4, "type": "fixed", "floating_ips": [{"address": "172.24.4.9", "version": 4}]}],
		 "routes": [{"cidr": "192.0.2.0/24", "gateway": {"address": "10.0.0.2", "version": 4}}], "meta": {}},
		{"cidr": "2001:db8::/64", "version": 6, "gateway": {"address": "2001:db8::1", "version": 6}, "dns": [],
		 "ips": [{"address": "2001:db8::5", "version": 6, "type": "fixed"}], "routes": [], "meta": {"ipv6_address_mode": "slaac"}}]}},
	{"id": "port-2", "address": "fa:16:3e:00:00:06", "type": "macvtap", "devname": "tapport-2", "network": {
	"id": "net-2", "meta": {"mtu": 1400}, "subnets": [{"cidr": "10.1.0.0/24", "version": 4, "gateway": {"address": null, "version": null},
	 "dns": [], "routes": [], "ips": [{"address": "10.1.0.5", "version": 4}], "meta": {"dhcp_server": "10.1.0.2"}}]}}]`

func newRig(t testing.TB) *rig {
	t.Helper()
	store, err := cell.Open(t.Context(), filepath.Join(t.TempDir(), "cell.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	secret := []byte("hush")
	service, err := metadata.New(metadata.Options{Cell: store, Groups: groups{}, Secret: secret, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, store: store, service: service}
	full := instance("mine", "full")
	full.Set("key_name", "lock")
	full.Set("key_data", "ssh-ed25519 AAAA me")
	key := objects.New("KeyPair")
	key.Set("name", "lock")
	key.Set("type", "ssh")
	key.Set("public_key", "ssh-ed25519 AAAA me")
	keys := objects.New("KeyPairList")
	keys.Set("objects", []any{key})
	full.Set("keypairs", keys)
	full.Set("user_data", base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\necho <hi>\n")))
	full.Set("metadata", map[string]string{"role": "<db>"})
	full.Set("availability_zone", "nova")
	full.Set("root_device_name", "/dev/vda")
	cache := objects.New("InstanceInfoCache")
	cache.Set("network_info", network)
	full.Set("info_cache", cache)
	g.full, g.bare = g.create(full), g.create(instance("mine", "bare"))
	g.proxy = &metadata.Proxy{Secret: secret, Next: service, Log: zerolog.Nop(), Resolver: addresses{
		"r 10.0.0.5": {g.full.UUID(), "mine"}, "r 10.0.0.6": {g.bare.UUID(), "mine"}, "r 10.0.0.7": {g.full.UUID(), "theirs"}, "r 10.0.0.8": {"gone", "mine"},
	}}
	return g
}

func instance(project, name string) objects.Instance {
	i := objects.NewInstance()
	for field, value := range map[string]any{
		"project_id": project, "user_id": "u", "display_name": name, "hostname": name, "reservation_id": "r-1", "launch_index": 0,
		"image_ref": "image-1", "vm_state": "active", "vcpus": 1, "memory_mb": 64,
	} {
		i.Set(field, value)
	}
	flavor := objects.New("Flavor")
	flavor.Set("name", "m1.tiny")
	i.Set("flavor", flavor)
	return i
}

func (g *rig) create(i objects.Instance) objects.Instance {
	g.t.Helper()
	made, err := g.store.CreateInstances(g.t.Context(), cell.Create{Instances: []cell.NewInstance{{Instance: i}}})
	if err != nil {
		g.t.Fatal(err)
	}
	return made[0]
}

// ask is a request of the guest with that address.
func (g *rig) ask(ctx context.Context, method, from, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, "/", strings.NewReader(body))
	r.URL.Path, r.RemoteAddr = path, from+":4711"
	// what a guest would like to be believed
	r.Header.Set("X-Instance-ID", g.full.UUID())
	r.Header.Set("X-Tenant-ID", "mine")
	w := httptest.NewRecorder()
	g.proxy.ServeBehind("r", w, r)
	return w
}

func TestDocuments(t *testing.T) {
	g := newRig(t)
	const full, bare = "10.0.0.5", "10.0.0.6"
	const ec2 = "1.0\n2007-01-19\n2007-03-01\n2007-08-29\n2007-10-10\n2007-12-15\n2008-02-01\n2008-09-01\n2009-04-04\nlatest"
	for _, c := range []struct {
		from, path string
		status     int
		want       string
	}{
		{full, "/", 200, ec2},
		{full, "/ec2/", 200, ec2},
		{full, "/openstack", 200, "2012-08-10\n2013-04-04\n2013-10-17\n2015-10-15\n2016-06-30\n2016-10-06\n2017-02-22\n2018-08-27\n2020-10-14\nlatest"},
		{full, "/openstack/2012-08-10/", 200, "meta_data.json\nuser_data"},
		{full, "/openstack/latest", 200, "meta_data.json\nuser_data\npassword\nvendor_data.json\nnetwork_data.json\nvendor_data2.json"},
		{bare, "/openstack/2013-10-17", 200, "meta_data.json\npassword\nvendor_data.json"},
		{full, "/openstack/latest/user_data", 200, "#!/bin/sh\necho <hi>\n"},
		{bare, "/openstack/latest/user_data", 404, ""},
		{full, "/openstack/latest/vendor_data.json", 200, "{}"},
		{full, "/openstack/latest/vendor_data2.json", 200, `{"static":{}}`},
		{full, "/openstack/2013-04-04/vendor_data.json", 404, ""},
		{bare, "/openstack/latest/network_data.json", 200, "{}"},
		{full, "/openstack/2099-01-01/meta_data.json", 404, ""},
		{full, "/openstack/latest/else", 404, ""},
		{full, "/openstack/content/0000", 404, ""},
		{full, "/openstack/../openstack/./latest/../latest/vendor_data.json", 200, "{}"},
		{full, "/latest", 200, "meta-data/\nuser-data"},
		{bare, "/latest", 200, "meta-data/"},
		{full, "/latest/user-data", 200, "#!/bin/sh\necho <hi>\n"},
		{full, "/1.0/meta-data/", 200, "ami-id\nami-launch-index\nami-manifest-path\nhostname\ninstance-id\nlocal-ipv4\npublic-keys/\nreservation-id\nsecurity-groups"},
		{full, "/2009-04-04/meta-data/instance-id", 200, "i-00000001"},
		{full, "/latest/meta-data/local-ipv4", 200, "10.0.0.5"},
		{bare, "/latest/meta-data/local-ipv4", 200, "10.0.0.6"},
		{full, "/latest/meta-data/public-ipv4", 200, "172.24.4.9"},
		{bare, "/latest/meta-data/public-ipv4", 200, ""},
		{full, "/latest/meta-data/instance-type", 200, "m1.tiny"},
		{full, "/latest/meta-data/security-groups", 200, "default\nweb"},
		{full, "/latest/meta-data/placement/", 200, "availability-zone"},
		{full, "/ec2/latest/meta-data/placement/availability-zone", 200, "nova"},
		{full, "/latest/meta-data/public-keys/", 200, "0=lock"},
		{full, "/latest/meta-data/public-keys/0/", 200, "openssh-key"},
		{full, "/latest/meta-data/public-keys/0/openssh-key", 200, "ssh-ed25519 AAAA me"},
		{bare, "/latest/meta-data/public-keys", 404, ""},
		{full, "/latest/meta-data/block-device-mapping/root", 200, "/dev/vda"},
		{bare, "/latest/meta-data/block-device-mapping", 200, "ami\nephemeral0\nroot\nswap"},
		{full, "/latest/meta-data/hostname/x", 404, ""},
		{full, "/latest/nothing", 404, ""},
		{full, "/favicon.ico", 404, ""},
		{"10.0.0.7", "/latest", 404, ""}, // a port of another project that claims the instance
		{"10.0.0.8", "/latest", 404, ""}, // an instance that is gone
		{"10.0.0.9", "/latest", 404, ""}, // nobody's address
	} {
		w := g.ask(t.Context(), http.MethodGet, c.from, c.path, "")
		if w.Code != c.status || w.Code == 200 && w.Body.String() != c.want {
			t.Errorf("%s of %s: %d %q, want %d %q", c.path, c.from, w.Code, w.Body, c.status, c.want)
		}
	}
}

func TestAGuestMayCloseItsHalf(t *testing.T) {
	g := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what net/http makes of it
	if w := g.ask(ctx, http.MethodGet, "10.0.0.5", "/openstack/latest/vendor_data.json", ""); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestMetadataByVersion(t *testing.T) {
	g := newRig(t)
	get := func(version string) map[string]any {
		w := g.ask(t.Context(), http.MethodGet, "10.0.0.5", "/openstack/"+version+"/meta_data.json", "")
		var md map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &md); err != nil || w.Header().Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %v %q", w.Body, err, w.Header())
		}
		return md
	}
	want := map[string]any{
		"uuid": g.full.UUID(), "hostname": "full", "name": "full", "launch_index": 0.0, "availability_zone": "nova",
		"meta": map[string]any{"role": "<db>"}, "public_keys": map[string]any{"lock": "ssh-ed25519 AAAA me"},
		"keys": []any{map[string]any{"name": "lock", "type": "ssh", "data": "ssh-ed25519 AAAA me"}},
	}
	if diff := cmp.Diff(want, get("2012-08-10")); diff != "" {
		t.Error(diff)
	}
	want["project_id"], want["devices"], want["dedicated_cpus"] = "mine", []any{}, []any{}
	got := get("latest")
	seed, _ := got["random_seed"].(string)
	if raw, err := base64.StdEncoding.DecodeString(seed); err != nil || len(raw) != 512 {
		t.Errorf("seed %q: %v", seed, err)
	}
	if get("latest")["random_seed"] == seed {
		t.Error("the seed is not random")
	}
	delete(got, "random_seed")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNetworkData(t *testing.T) {
	g := newRig(t)
	w := g.ask(t.Context(), http.MethodGet, "10.0.0.5", "/openstack/latest/network_data.json", "")
	var got, want any
	for text, into := range map[string]*any{w.Body.String(): &got, `{
		"links": [
			{"id": "tapport-1", "vif_id": "port-1", "type": "bridge", "mtu": 1450, "ethernet_mac_address": "fa:16:3e:00:00:05"},
			{"id": "tapport-2", "vif_id": "port-2", "type": "phy", "mtu": null, "ethernet_mac_address": "fa:16:3e:00:00:06"}],
		"networks": [
			{"id": "network0", "type": "ipv4", "link": "tapport-1", "ip_address": "10.0.0.5", "netmask": "255.255.255.192", "network_id": "net-1",
			 "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"}, {"network": "192.0.2.0", "netmask": "255.255.255.0", "gateway": "10.0.0.2"}],
			 "services": [{"type": "dns", "address": "192.0.2.53"}]},
			{"id": "network1", "type": "ipv6_slaac", "link": "tapport-1", "ip_address": "2001:db8::5", "netmask": "ffff:ffff:ffff:ffff::", "network_id": "net-1",
			 "routes": [{"network": "::", "netmask": "::", "gateway": "2001:db8::1"}], "services": []},
			{"id": "network2", "type": "ipv4_dhcp", "link": "tapport-2", "network_id": "net-2"}],
		"services": [{"type": "dns", "address": "192.0.2.53"}]}`: &want} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPasswordIsTakenOnce(t *testing.T) {
	g := newRig(t)
	const path = "/openstack/latest/password"
	long := strings.Repeat("é", 300) + "end"
	for _, c := range []struct {
		method, body string
		status       int
		want         string
	}{
		{http.MethodGet, "", 200, ""},
		{http.MethodPut, "x", 400, ""},
		{http.MethodPost, strings.Repeat("x", 1021), 400, ""},
		{http.MethodPost, "\xff", 400, ""},
		{http.MethodGet, "", 200, ""},
		{http.MethodPost, long, 200, ""},
		{http.MethodPost, "other", 409, ""},
		{http.MethodGet, "", 200, long},
	} {
		w := g.ask(t.Context(), c.method, "10.0.0.5", path, c.body)
		if w.Code != c.status || w.Code == 200 && w.Body.String() != c.want {
			t.Errorf("%s %.10q: %d %q, want %d %q", c.method, c.body, w.Code, w.Body, c.status, c.want)
		}
	}
	if w := g.ask(t.Context(), http.MethodGet, "10.0.0.6", path, ""); w.Body.String() != "" {
		t.Errorf("the other one has %q", w.Body)
	}
}

func TestNobodyIsBelievedWithoutASignature(t *testing.T) {
	g := newRig(t)
	// HMAC-SHA256 of the id "x", the key "hush": an independent value, by openssl
	const signatureOfX = "038a52becee08e865d43b33521234361612ec2e2723097e72068f88c08bda071"
	id := g.full.UUID()
	for name, c := range map[string]struct {
		headers map[string][]string
		status  int
	}{
		"none":                 {nil, 400},
		"no signature":         {map[string][]string{"X-Instance-ID": {id}, "X-Tenant-ID": {"mine"}}, 400},
		"no tenant":            {map[string][]string{"X-Instance-ID": {id}, "X-Instance-ID-Signature": {"x"}}, 400},
		"two instances":        {map[string][]string{"X-Instance-ID": {id, id}, "X-Instance-ID-Signature": {"x"}, "X-Tenant-ID": {"mine"}}, 400},
		"wrong":                {map[string][]string{"X-Instance-ID": {id}, "X-Instance-ID-Signature": {"x"}, "X-Tenant-ID": {"mine"}}, 403},
		"empty":                {map[string][]string{"X-Instance-ID": {id}, "X-Instance-ID-Signature": {""}, "X-Tenant-ID": {"mine"}}, 403},
		"another's":            {map[string][]string{"X-Instance-ID": {id}, "X-Instance-ID-Signature": {signatureOfX}, "X-Tenant-ID": {"mine"}}, 403},
		"right, but not there": {map[string][]string{"X-Instance-ID": {"x"}, "X-Instance-ID-Signature": {signatureOfX}, "X-Tenant-ID": {"mine"}}, 404},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/latest", nil)
			for header, values := range c.headers {
				for _, v := range values {
					r.Header.Add(header, v)
				}
			}
			w := httptest.NewRecorder()
			g.service.ServeHTTP(w, r)
			if body, _ := io.ReadAll(w.Body); w.Code != c.status || strings.Contains(string(body), "meta-data") {
				t.Errorf("%d %s", w.Code, body)
			}
		})
	}
	if _, err := metadata.New(metadata.Options{Cell: g.store, Groups: groups{}}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("without a secret: %v", err)
	}
}

func FuzzPaths(f *testing.F) {
	for _, path := range []string{"/", "", "//", "/openstack/latest/meta_data.json", "/latest/meta-data/public-keys/0", "/ec2/../openstack", "/latest/meta-data/security-groups/default"} {
		f.Add("GET", path)
	}
	g := newRig(f)
	f.Fuzz(func(t *testing.T, method, path string) {
		if method != http.MethodPost {
			method = http.MethodGet
		}
		if w := g.ask(t.Context(), method, "10.0.0.5", path, "x"); w.Code >= 500 {
			t.Errorf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
	})
}
