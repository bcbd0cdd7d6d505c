package compute

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestVersionsAreTold(t *testing.T) {
	r := newRig(t)
	r.ask("", "", "GET", "/", nil).is(200).has("v2.0", "versions", 0, "id").has("2.93", "versions", 1, "version").has("2.1", "versions", 1, "min_version")
	for _, path := range []string{"/v2.1", "/v2.1/"} {
		a := r.ask("", "", "GET", path, nil).is(200).has("CURRENT", "version", "status")
		if v := a.Header().Get("OpenStack-API-Version"); v != "compute 2.1" {
			t.Errorf("%s: version %q", path, v)
		}
	}
	r.ask("", "", "GET", "/v2", nil).is(200).has("SUPPORTED", "version", "status")
	r.ask("", "", "GET", "/servers", nil).is(300).has("v2.1", "choices", 1, "id")
	r.ask("demo", "2.94", "GET", "/v2.1/flavors", nil).says(406, "Version 2.94 is not supported by the API. Minimum is 2.1 and maximum is 2.93.")
	r.ask("demo", "2.93", "GET", "/v2.1/nothing", nil).is(404)
	r.ask("demo", "2.93", "DELETE", "/v2.1/flavors", nil).is(404)
	r.ask("demo", "2.93", "GET", "/v2.1/os-cells", nil).says(410, "This resource is no longer available. No forwarding address is given.")
	r.ask("demo", "2.93", "GET", "/v2.1/images", nil).says(404, "The resource could not be found.")
	r.ask("", "2.93", "GET", "/v2.1/flavors", nil).is(401)
	a := r.ask("demo", "2.40", "GET", "/v2.1/flavors", nil).is(200)
	for h, want := range map[string]string{"X-Openstack-Nova-Api-Version": "2.40", "Openstack-Api-Version": "compute 2.40"} {
		if got := a.Header().Get(h); got != want {
			t.Errorf("%s: %q, want %q", h, got, want)
		}
	}
	if id := a.Header().Get("X-Compute-Request-Id"); !strings.HasPrefix(id, "req-") || id != a.Header().Get("X-Openstack-Request-Id") {
		t.Errorf("request id %q", id)
	}
}

func TestAProjectMayStandInThePath(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	r.ask("demo", "2.93", "GET", "/v2.1/"+demoProject+"/flavors", nil).is(200).
		has("http://example.com/v2.1/"+demoProject+"/flavors/"+f, "flavors", 0, "links", 0, "href")
	r.ask("demo", "2.93", "GET", "/v2.1/"+adminProject+"/flavors", nil).
		says(400, "Malformed request URL: URL's project_id '"+adminProject+"' doesn't match Context's project_id '"+demoProject+"'")
}

func TestFlavors(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	r.ask("admin", "2.93", "POST", "/v2.1/flavors", `{"flavor": {"name": "tiny", "ram": 1, "vcpus": 1, "disk": 1}}`).says(409, "Flavor with name tiny already exists.")
	r.ask("admin", "2.93", "POST", "/v2.1/flavors", `{"flavor": {"name": "x", "id": "`+f+`", "ram": 1, "vcpus": 1, "disk": 1}}`).says(409, "Flavor with ID "+f+" already exists.")
	r.ask("admin", "2.93", "POST", "/v2.1/flavors", `{"flavor": {"name": "x", "ram": 0, "vcpus": 1, "disk": 1}}`).
		says(400, "Invalid input for field/attribute ram. Value: 0. 0 is less than the minimum of 1")
	r.ask("admin", "2.93", "POST", "/v2.1/flavors", `{"flavor": {"name": "x", "ram": "5", "vcpus": 1, "disk": 1, "id": " a"}}`).
		says(400, "Invalid input for field/attribute id. Value:  a. ' a' does not match '^(?! )[a-zA-Z0-9. _-]+(?<! )$'")
	hidden := r.ask("admin", "2.93", "POST", "/v2.1/flavors", `{"flavor": {"name": "hidden", "ram": "512", "vcpus": 2, "disk": 5, "os-flavor-access:is_public": false}}`).
		is(200).has(512, "flavor", "ram").text("flavor", "id")
	r.ask("demo", "2.93", "GET", "/v2.1/flavors/"+hidden, nil).says(404, "Flavor "+hidden+" could not be found.")
	access := "/v2.1/flavors/" + hidden + "/action"
	r.ask("admin", "2.93", "POST", access, `{"addTenantAccess": {"tenant": "`+demoProject+`"}}`).is(200).has(demoProject, "flavor_access", 0, "tenant_id")
	r.ask("demo", "2.93", "GET", "/v2.1/flavors/detail?sort_key=name&minRam=100", nil).is(200).has("hidden", "flavors", 0, "name")
	r.ask("admin", "2.93", "POST", access, `{"removeTenantAccess": {"tenant": "`+demoProject+`"}}`).is(200)
	r.ask("demo", "2.93", "GET", "/v2.1/flavors?minRam=100", nil).is(200).has("[]", "flavors")
	specs := "/v2.1/flavors/" + f + "/os-extra_specs"
	r.ask("admin", "2.93", "POST", specs, `{"extra_specs": {"a": "b", "resources:CUSTOM_X": "2"}}`).is(200)
	r.ask("admin", "2.93", "POST", specs, `{"extra_specs": {"resources:x y": "2"}}`).is(400)
	r.ask("demo", "2.93", "GET", "/v2.1/flavors/"+f, nil).is(200).has("b", "flavor", "extra_specs", "a")
	r.ask("admin", "2.93", "DELETE", specs+"/a", nil).is(200)
	r.ask("demo", "2.93", "GET", specs+"/a", nil).says(404, "Flavor "+f+" has no extra specs with key a.")
	r.ask("admin", "2.93", "PUT", "/v2.1/flavors/"+f, `{"flavor": {"description": "words"}}`).is(200).has("words", "flavor", "description")
	r.ask("admin", "2.93", "DELETE", "/v2.1/flavors/"+f, nil).is(202)
	r.ask("admin", "2.93", "DELETE", "/v2.1/flavors/"+f, nil).is(404)
}

func TestAGeneratedKeyIsAPair(t *testing.T) {
	r := newRig(t)
	a := r.ask("demo", "2.91", "POST", "/v2.1/os-keypairs", `{"keypair": {"name": "made"}}`).is(201)
	block, _ := pem.Decode([]byte(a.text("keypair", "private_key")))
	private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(a.text("keypair", "public_key")))
	if err != nil {
		t.Fatal(err)
	}
	crypto, ok := public.(ssh.CryptoPublicKey)
	if !ok {
		t.Fatal("no such key")
	}
	if pub, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); !ok || !pub.Equal(&private.PublicKey) {
		t.Error("the halves are of different keys")
	}
	if a.text("keypair", "fingerprint") != ssh.FingerprintLegacyMD5(public) {
		t.Error("fingerprint")
	}
	if shown := r.ask("demo", "2.92", "GET", "/v2.1/os-keypairs/made", nil).is(200); strings.Contains(shown.Body.String(), "PRIVATE") {
		t.Error("the private key is kept")
	}
}

func TestKeyPairs(t *testing.T) {
	r := newRig(t)
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUaQ1sIdPdrwNfO40SCjCrpp++ARybcMPtsnAMCQcyP bench"
	r.ask("demo", "2.92", "POST", "/v2.1/os-keypairs", `{"keypair": {"name": "k", "public_key": "`+key+`"}}`).is(201).
		has("ea:33:4b:7d:f7:28:e2:67:20:3a:53:f9:39:16:ba:1d", "keypair", "fingerprint")
	r.ask("demo", "2.92", "POST", "/v2.1/os-keypairs", `{"keypair": {"name": "k", "public_key": "`+key+`"}}`).says(409, "Key pair 'k' already exists.")
	r.ask("demo", "2.92", "POST", "/v2.1/os-keypairs", `{"keypair": {"name": "bad", "public_key": "what"}}`).is(400)
	r.ask("demo", "2.92", "POST", "/v2.1/os-keypairs", `{"keypair": {"name": "cert", "type": "x509", "public_key": "x"}}`).is(400)
	r.ask("demo", "2.92", "POST", "/v2.1/os-keypairs", `{"keypair": {"name": "gen"}}`).
		says(400, "Invalid input for field/attribute keypair. Value: {'name': 'gen'}. 'public_key' is a required property")
	r.ask("second", "2.92", "GET", "/v2.1/os-keypairs/k", nil).says(404, "Keypair k not found for user second-id")
	r.ask("second", "2.92", "GET", "/v2.1/os-keypairs/k?user_id=demo-id", nil).is(403)
	r.ask("admin", "2.92", "GET", "/v2.1/os-keypairs/k?user_id=demo-id", nil).is(200).has("k", "keypair", "name")
	r.ask("admin", "2.93", "PUT", "/v2.1/os-quota-sets/"+demoProject, `{"quota_set": {"key_pairs": 1}}`).is(200)
	r.ask("demo", "2.92", "POST", "/v2.1/os-keypairs", `{"keypair": {"name": "k2", "public_key": "`+key+`"}}`).says(403, "Quota exceeded, too many key pairs.")
	r.ask("demo", "2.92", "DELETE", "/v2.1/os-keypairs/k", nil).is(204)
	r.ask("demo", "2.92", "DELETE", "/v2.1/os-keypairs/k", nil).is(404)
}

func TestTheLegacyEndpointHasNoMicroversions(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	for _, path := range []string{"/v2/flavors", "/v2/" + demoProject + "/flavors"} {
		a := r.ask("demo", "2.93", "GET", path, nil).is(200)
		for _, h := range []string{"OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "Vary"} {
			if v := a.Header().Get(h); v != "" {
				t.Errorf("%s: %s: %q", path, h, v)
			}
		}
		if href := a.text("flavors", 0, "links", 0, "href"); !strings.HasSuffix(href, path+"/"+f) {
			t.Errorf("%s: link %q", path, href)
		}
	}
	r.ask("demo", "", "GET", "/v2/0123456789abcdef/flavors", nil).is(400)
	r.ask("demo", "", "GET", "/v2/nothing", nil).is(404)
	r.ask("", "", "GET", "/v2/flavors", nil).is(401)
}

func TestAggregatesMakeZones(t *testing.T) {
	r := newRig(t)
	r.ask("demo", "2.93", "GET", "/v2.1/os-aggregates", nil).is(403)
	id := fmt.Sprint(r.ask("admin", "2.93", "POST", "/v2.1/os-aggregates", `{"aggregate": {"name": "one", "availability_zone": "east"}}`).is(200).get("aggregate", "id"))
	other := fmt.Sprint(r.ask("admin", "2.93", "POST", "/v2.1/os-aggregates", `{"aggregate": {"name": "two", "availability_zone": "west"}}`).is(200).get("aggregate", "id"))
	r.ask("admin", "2.93", "POST", "/v2.1/os-aggregates", `{"aggregate": {"name": "one"}}`).says(409, "Aggregate one already exists.")
	r.ask("admin", "2.93", "POST", "/v2.1/os-aggregates/"+id+"/action", `{"add_host": {"host": "nobody"}}`).says(404, "Compute host nobody could not be found.")
	r.ask("admin", "2.93", "POST", "/v2.1/os-aggregates/"+id+"/action", `{"add_host": {"host": "`+host+`"}}`).is(200).has(host, "aggregate", "hosts", 0)
	r.ask("admin", "2.93", "POST", "/v2.1/os-aggregates/"+other+"/action", `{"add_host": {"host": "`+host+`"}}`).
		says(409, "Cannot add host to aggregate "+other+". Reason: One or more hosts already in availability zone(s) ['east'].")
	zones, err := r.service.Zones(t.Context())
	if err != nil || zones[host] != "east" {
		t.Errorf("zones %v, %v", zones, err)
	}
	r.ask("demo", "2.93", "GET", "/v2.1/os-availability-zone", nil).is(200).has("east", "availabilityZoneInfo", 0, "zoneName")
	f := r.flavor("tiny")
	r.ask("demo", "2.93", "POST", "/v2.1/servers", fmt.Sprintf(`{"server": {"name": "z", "flavorRef": %q, "imageRef": %q, "networks": "none", "availability_zone": "nova"}}`, f, activeImage)).
		says(400, "The requested availability zone is not available")
	sid := r.server("demo", "a", f)
	r.ask("demo", "2.93", "GET", "/v2.1/servers/"+sid, nil).is(200).has("east", "server", "OS-EXT-AZ:availability_zone")
	r.ask("admin", "2.93", "PUT", "/v2.1/os-aggregates/"+id, `{"aggregate": {"availability_zone": "north"}}`).
		says(400, "Cannot update aggregate "+id+". Reason: One or more hosts contain instances in this zone.")
	r.ask("admin", "2.93", "POST", "/v2.1/os-aggregates/"+id+"/action", `{"set_metadata": {"metadata": {"k": "v", "gone": null}}}`).is(200).has("v", "aggregate", "metadata", "k")
	if n := r.told.count(); n != 1 {
		t.Errorf("placement knows of %d hosts in aggregates", n)
	}
	r.ask("admin", "2.93", "DELETE", "/v2.1/os-aggregates/"+id, nil).is(400)
	r.ask("admin", "2.93", "POST", "/v2.1/os-aggregates/"+id+"/action", `{"remove_host": {"host": "`+host+`"}}`).is(200)
	r.ask("admin", "2.93", "DELETE", "/v2.1/os-aggregates/"+id, nil).is(200)
	if n := r.told.count(); n != 0 {
		t.Errorf("placement knows of %d hosts in aggregates after the removal", n)
	}
}

func TestServicesAndHypervisors(t *testing.T) {
	r := newRig(t)
	r.ask("demo", "2.93", "GET", "/v2.1/os-services", nil).is(403)
	list := r.ask("admin", "2.93", "GET", "/v2.1/os-services?binary=nova-compute", nil).is(200).has("up", "services", 0, "state").has("nova", "services", 0, "zone")
	id := list.text("services", 0, "id")
	r.ask("admin", "2.93", "PUT", "/v2.1/os-services/"+id, `{"status": "disabled", "disabled_reason": "why"}`).is(200).has("disabled", "service", "status")
	r.hears("set_host_enabled")
	r.ask("admin", "2.1", "PUT", "/v2.1/os-services/enable", `{"host": "`+host+`", "binary": "nova-compute"}`).is(200).has("enabled", "service", "status")
	r.hears("set_host_enabled")
	r.ask("admin", "2.93", "PUT", "/v2.1/os-services/"+id, `{}`).is(400)
	detail := r.ask("admin", "2.93", "GET", "/v2.1/os-hypervisors/detail?with_servers=true", nil).is(200).has("up", "hypervisors", 0, "uptime").has("[]", "hypervisors", 0, "servers")
	r.hears("get_host_uptime")
	r.ask("admin", "2.87", "GET", "/v2.1/os-hypervisors/"+detail.text("hypervisors", 0, "id"), nil).is(200).has(8, "hypervisor", "vcpus").has("x86_64", "hypervisor", "cpu_info", "arch")
	r.ask("admin", "2.1", "GET", "/v2.1/os-hypervisors/statistics", nil).is(200).has(1, "hypervisor_statistics", "count")
	r.ask("admin", "2.93", "GET", "/v2.1/os-hypervisors/statistics", nil).is(404) // gone in 2.88
	r.ask("admin", "2.93", "GET", "/v2.1/os-hypervisors?hypervisor_hostname_pattern=none", nil).says(404, "No hypervisor matching 'none' could be found.")
	sid := r.server("demo", "a", r.flavor("tiny"))
	r.ask("admin", "2.93", "DELETE", "/v2.1/os-services/"+id, nil).says(409, "Unable to delete compute service that is hosting instances. Migrate or delete the instances first.")
	r.ask("demo", "2.93", "DELETE", "/v2.1/servers/"+sid, nil).is(204)
	r.hears("terminate_instance")
}

func TestQuotaSets(t *testing.T) {
	r := newRig(t)
	path := "/v2.1/os-quota-sets/" + demoProject
	r.ask("demo", "2.93", "GET", path, nil).is(200).has(10, "quota_set", "instances")
	r.ask("other", "2.93", "GET", path, nil).says(403, "Policy doesn't allow os_compute_api:os-quota-sets:show to be performed.")
	r.ask("admin", "2.93", "GET", "/v2.1/os-quota-sets/nobody", nil).says(400, "Project ID nobody is not a valid project.")
	r.ask("admin", "2.93", "PUT", "/v2.1/os-quota-class-sets/default", `{"quota_class_set": {"instances": 7}}`).is(200)
	r.ask("demo", "2.93", "GET", path, nil).is(200).has(7, "quota_set", "instances")
	r.ask("admin", "2.93", "PUT", path, `{"quota_set": {"instances": -1, "cores": "50"}}`).is(200).has(-1, "quota_set", "instances").has(50, "quota_set", "cores")
	r.ask("admin", "2.93", "PUT", path, `{"quota_set": {"instances": -2}}`).
		says(400, "Invalid input for field/attribute instances. Value: -2. -2 is less than the minimum of -1")
	r.ask("admin", "2.93", "PUT", path+"?user_id=demo-id", `{"quota_set": {"cores": 51}}`).says(400, "Quota limit 51 for cores must be less than or equal to 50.")
	r.ask("admin", "2.93", "PUT", path+"?user_id=demo-id", `{"quota_set": {"cores": 1}}`).is(200).has(1, "quota_set", "cores")
	f := r.flavor("tiny")
	r.server("demo", "a", f)
	body := fmt.Sprintf(`{"server": {"name": "b", "flavorRef": %q, "imageRef": %q, "networks": "none"}}`, f, activeImage)
	r.ask("demo", "2.93", "POST", "/v2.1/servers", body).says(403, "Quota exceeded for cores: Requested 1, but already used 1 of 1 cores")
	r.ask("second", "2.93", "POST", "/v2.1/servers", body).is(202)
	r.ask("demo", "2.93", "GET", path+"/detail", nil).is(200).has(2, "quota_set", "cores", "in_use")
	r.ask("admin", "2.93", "DELETE", path, nil).is(202)
	r.ask("demo", "2.93", "GET", path+"?user_id=demo-id", nil).is(200).has(20, "quota_set", "cores")
}

func TestUsageIsSummed(t *testing.T) {
	r := newRig(t)
	r.server("demo", "a", r.flavor("tiny"))
	a := r.ask("demo", "2.93", "GET", "/v2.1/os-simple-tenant-usage/"+demoProject+"?start=2020-01-01T00:00:00", nil).is(200)
	a.has("a", "tenant_usage", "server_usages", 0, "name").has("tiny", "tenant_usage", "server_usages", 0, "flavor")
	r.ask("other", "2.93", "GET", "/v2.1/os-simple-tenant-usage/"+demoProject, nil).is(403)
	r.ask("admin", "2.93", "GET", "/v2.1/os-simple-tenant-usage?start=2020-01-01T00:00:00&end=2020-02-01T00:00:00", nil).is(200).has("[]", "tenant_usages")
}
