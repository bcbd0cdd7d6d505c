package compute

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

func TestServerLives(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	id := r.server("demo", "Web 1", f)
	path := "/v2.1/servers/" + id
	show := r.ask("demo", "2.93", "GET", path, nil).is(200)
	show.has("ACTIVE", "server", "status").has("Web 1", "server", "name").has("10.0.0.5", "server", "addresses", "private", 0, "addr")
	show.has("web-1", "server", "OS-EXT-SRV-ATTR:hostname").has("tiny", "server", "flavor", "original_name").has("nova", "server", "OS-EXT-AZ:availability_zone")
	if strings.Contains(show.Body.String(), host) {
		t.Error("a tenant sees the host")
	}
	r.ask("admin", "2.93", "GET", path, nil).is(200).has(host, "server", "OS-EXT-SRV-ATTR:host").has("instance-00000001", "server", "OS-EXT-SRV-ATTR:instance_name").
		has("UP", "server", "host_status")
	r.ask("demo", "2.1", "GET", path, nil).is(200).has(f, "server", "flavor", "id")

	r.ask("demo", "2.93", "POST", path+"/action", `{"os-start": null}`).says(409, "Cannot 'start' instance "+id+" while it is in vm_state active")
	r.ask("demo", "2.93", "POST", path+"/action", `{"os-stop": null}`).is(202)
	r.hears("stop_instance")
	r.ask("demo", "2.93", "POST", path+"/action", `{"os-stop": null}`).says(409, "Cannot 'stop' instance "+id+" while it is in task_state powering-off")
	r.ask("demo", "2.93", "POST", path+"/action", `{"os-getConsoleOutput": {"length": 3}}`).is(200).has("last 3", "output")
	r.hears("get_console_output")
	actions := r.ask("demo", "2.93", "GET", path+"/os-instance-actions", nil).is(200)
	actions.has("stop", "instanceActions", 0, "action").has("create", "instanceActions", 1, "action")
	r.ask("demo", "2.93", "GET", path+"/os-instance-actions/"+actions.text("instanceActions", 0, "request_id"), nil).is(200).has("stop", "instanceAction", "action")

	r.ask("demo", "2.93", "DELETE", path, nil).is(204)
	r.hears("terminate_instance")
}

// What a line break in a name would say to who reads lines (/etc/hosts, a
// resolver) is not said.
func TestNoNameHasALineBreak(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	path := "/v2.1/servers/" + r.server("demo", "web", f)
	if got := hostname("web\r\n10.0.0.9 db"); got != "web10-0-0-9-db" {
		t.Errorf("host name %q", got)
	}
	for _, evil := range []string{`web\n10.0.0.9 db`, `web\n`, `\rweb`, `web\u2028x`} {
		r.ask("demo", "2.93", "PUT", path, `{"server": {"name": "`+evil+`"}}`).is(400)
		r.ask("demo", "2.93", "PUT", path, `{"server": {"hostname": "`+evil+`"}}`).is(400)
		r.ask("demo", "2.93", "POST", "/v2.1/servers", `{"server": {"name": "`+evil+`", "flavorRef": "`+f+`", "imageRef": "`+activeImage+`", "networks": "none"}}`).is(400)
		r.ask("demo", "2.93", "POST", "/v2.1/servers", `{"server": {"name": "a", "hostname": "`+evil+`", "flavorRef": "`+f+`", "imageRef": "`+activeImage+`", "networks": "none"}}`).is(400)
	}
	r.ask("demo", "2.93", "GET", path, nil).is(200).has("web", "server", "name").has("web", "server", "OS-EXT-SRV-ATTR:hostname")
}

func TestASnapshotIsAQueuedImageAndATask(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "a", r.flavor("tiny"))
	path := "/v2.1/servers/" + id
	image := r.ask("demo", "2.93", "POST", path+"/action", `{"createImage": {"name": "snap", "metadata": {"k": "v"}}}`).is(202).text("image_id")
	r.hears("snapshot_instance")
	made := r.images.made[0]
	if made.ID != image || made.Name != "snap" || made.DiskFormat != "raw" || made.MinDisk != 1 ||
		made.Properties["k"] != "v" || made.Properties["instance_uuid"] != id || made.Properties["base_image_ref"] != activeImage || made.Properties["os_distro"] != "busybox" {
		t.Errorf("image %+v", made)
	}
	r.ask("demo", "2.93", "GET", path, nil).is(200).has("image_snapshot_pending", "server", "OS-EXT-STS:task_state")
}

func TestAnImageThatCannotBeMadeLeavesNoTask(t *testing.T) {
	r := newRig(t)
	path := "/v2.1/servers/" + r.server("demo", "a", r.flavor("tiny"))
	r.images.fails = errors.New("full")
	r.ask("demo", "2.93", "POST", path+"/action", `{"createImage": {"name": "snap"}}`).is(500)
	r.ask("demo", "2.93", "GET", path, nil).is(200).has(nil, "server", "OS-EXT-STS:task_state")
}

func TestAHostThatCannotBeToldLeavesNoTask(t *testing.T) {
	r := newRig(t)
	path := "/v2.1/servers/" + r.server("demo", "a", r.flavor("tiny"))
	r.rpc.cut = errors.New("cut")
	for _, body := range []string{`{"os-stop": null}`, `{"pause": null}`, `{"reboot": {"type": "SOFT"}}`, `{"createImage": {"name": "x"}}`} {
		r.ask("demo", "2.93", "POST", path+"/action", body).is(500)
		r.ask("demo", "2.93", "GET", path, nil).is(200).has(nil, "server", "OS-EXT-STS:task_state").has("ACTIVE", "server", "status")
	}
}

func TestAServerWithoutHostIsDeletedByTheConductor(t *testing.T) {
	r := newRig(t)
	r.tasks.nowhere = true
	id := r.server("demo", "a", r.flavor("tiny"))
	r.ask("demo", "2.93", "GET", "/v2.1/servers/"+id, nil).is(200).has("BUILD", "server", "status").has("", "server", "hostId")
	r.ask("demo", "2.93", "POST", "/v2.1/servers/"+id+"/action", `{"pause": null}`).says(409, "Cannot 'pause' instance "+id+" while it is in vm_state building")
	r.ask("demo", "2.93", "DELETE", "/v2.1/servers/"+id, nil).is(204)
	r.ask("demo", "2.93", "GET", "/v2.1/servers/"+id, nil).says(404, "Instance "+id+" could not be found.")
}

func TestNobodySeesWhatIsOfAnotherProject(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "secret", r.flavor("tiny"))
	path := "/v2.1/servers/" + id
	for _, c := range []struct{ method, path, body string }{
		{"GET", "", ""},
		{"PUT", "", `{"server": {"name": "x"}}`},
		{"DELETE", "", ""},
		{"POST", "/action", `{"os-stop": null}`},
		{"GET", "/metadata", ""},
		{"PUT", "/metadata", `{"metadata": {}}`},
		{"GET", "/tags", ""},
		{"PUT", "/tags", `{"tags": []}`},
		{"GET", "/ips", ""},
		{"GET", "/os-interface", ""},
		{"GET", "/os-security-groups", ""},
		{"GET", "/os-instance-actions", ""},
		{"GET", "/os-volume_attachments", ""},
		{"GET", "/os-server-password", ""},
		{"GET", "/diagnostics", ""},
		{"GET", "/topology", ""},
		{"POST", "/remote-consoles", `{"remote_console": {"protocol": "serial", "type": "serial"}}`},
		{"GET", "/migrations", ""},
	} {
		var body any
		if c.body != "" {
			body = c.body
		}
		r.ask("other", "2.93", c.method, path+c.path, body).says(404, "Instance "+id+" could not be found.")
	}
	for _, list := range []string{"/servers", "/servers/detail", "/servers?name=secret"} {
		if a := r.ask("other", "2.93", "GET", "/v2.1"+list, nil).is(200); strings.Contains(a.Body.String(), id) {
			t.Errorf("%s shows it: %s", list, a.Body)
		}
	}
	r.ask("other", "2.93", "GET", "/v2.1/servers?all_tenants=1", nil).says(403, "Policy doesn't allow os_compute_api:servers:index:get_all_tenants to be performed.")
	r.ask("admin", "2.93", "GET", "/v2.1/servers?all_tenants=1", nil).is(200).has(id, "servers", 0, "id")
}

func TestAReaderChangesNothing(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	id := r.server("demo", "a", f)
	before := r.ask("reader", "2.93", "GET", "/v2.1/servers/"+id, nil).is(200).Body.String()
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/servers", fmt.Sprintf(`{"server": {"name": "b", "flavorRef": %q, "imageRef": %q, "networks": "none"}}`, f, activeImage)},
		{"PUT", "/servers/" + id, `{"server": {"name": "x"}}`},
		{"DELETE", "/servers/" + id, ""},
		{"POST", "/servers/" + id + "/action", `{"os-stop": null}`},
		{"POST", "/servers/" + id + "/action", `{"lock": null}`},
		{"POST", "/servers/" + id + "/action", `{"createImage": {"name": "x"}}`},
		{"POST", "/servers/" + id + "/action", `{"os-getConsoleOutput": {}}`},
		{"POST", "/servers/" + id + "/metadata", `{"metadata": {"a": "b"}}`},
		{"PUT", "/servers/" + id + "/tags/x", ""},
		{"DELETE", "/servers/" + id + "/tags", ""},
		{"POST", "/servers/" + id + "/os-interface", `{"interfaceAttachment": {}}`},
		{"POST", "/os-server-groups", `{"server_group": {"name": "g", "policy": "affinity"}}`},
		{"POST", "/flavors", `{"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 1}}`},
		{"PUT", "/os-quota-sets/" + demoProject, `{"quota_set": {"cores": 1}}`},
	} {
		var body any
		if c.body != "" {
			body = c.body
		}
		if a := r.ask("reader", "2.93", c.method, "/v2.1"+c.path, body); a.Code != 403 {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.Code, a.Body)
		}
	}
	if after := r.ask("reader", "2.93", "GET", "/v2.1/servers/"+id, nil).Body.String(); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
}

func TestWrongOrdersAreRefusedBeforeAnythingChanges(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	small := r.ask("admin", "2.93", "POST", "/v2.1/flavors", `{"flavor": {"name": "nodisk", "ram": 64, "vcpus": 1, "disk": 0}}`).is(200).text("flavor", "id")
	for _, c := range []struct {
		name, fields string
		status       int
		message      string
	}{
		{"no network", `"x": 1`, 400, ""},
		{"unknown key", `"networks": "none", "what": 1`, 400, ""},
		{"unknown image", `"networks": "none", "imageRef": "99999999-9999-4999-8999-999999999999"`, 400, "Can not find requested image"},
		{"queued image", `"networks": "none", "imageRef": "` + queuedImage + `"`, 400, "Image " + queuedImage + " is not active."},
		{"no disk", `"networks": "none", "flavorRef": "` + small + `"`, 403, "Only volume-backed servers are allowed for flavors with zero disk."},
		{"volume", `"networks": "none", "block_device_mapping_v2": [{"source_type": "volume", "destination_type": "volume", "boot_index": 0, "uuid": "x"}]`, 400, "Block Device Mapping is Invalid: volumes are not supported by this cloud."},
		{"port in use", `"networks": [{"port": "66666666-6666-4666-8666-666666666666"}]`, 400, "Port id 66666666-6666-4666-8666-666666666666 could not be found."},
		{"same port twice", `"networks": [{"port": "` + freePort + `"}, {"port": "` + freePort + `"}]`, 400, "Port ID '" + freePort + "' was specified twice: you cannot attach a port multiple times."},
		{"network without subnet", `"networks": [{"uuid": "` + otherNet + `"}]`, 400, "Network " + otherNet + " requires a subnet in order to boot instances on."},
		{"twin groups", `"networks": "none", "security_groups": [{"name": "twin"}]`, 409, "Multiple security groups found matching 'twin'. Use an ID to be more specific."},
		{"metadata", `"networks": "none", "metadata": {"a": 1}`, 400, "Invalid input for field/attribute a. Value: 1. 1 is not of type 'string'"},
		{"certificates", `"networks": "none", "trusted_image_certificates": ["a"]`, 400, "trusted_image_certificates are not supported by this cloud."},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := `"name": "a", "flavorRef": "` + f + `", "imageRef": "` + activeImage + `", `
			a := r.ask("demo", "2.93", "POST", "/v2.1/servers", `{"server": {`+base+c.fields+`}}`).is(c.status)
			if c.message != "" {
				a.says(c.status, c.message)
			}
		})
	}
	r.ask("demo", "2.93", "GET", "/v2.1/servers", nil).is(200).has("[]", "servers")
	r.ask("demo", "2.93", "GET", "/v2.1/limits", nil).is(200).has(0, "limits", "absolute", "totalInstancesUsed")
}

func TestQuotasHoldAgainstParallelCreates(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	r.ask("admin", "2.93", "PUT", "/v2.1/os-quota-sets/"+demoProject, `{"quota_set": {"instances": 5, "cores": 100}}`).is(200)
	var wg sync.WaitGroup
	codes := make(chan int, 20)
	for n := range 20 {
		wg.Go(func() {
			codes <- r.ask("demo", "2.93", "POST", "/v2.1/servers", fmt.Sprintf(
				`{"server": {"name": "p%d", "flavorRef": %q, "imageRef": %q, "networks": "none"}}`, n, f, activeImage)).Code
		})
	}
	wg.Wait()
	close(codes)
	got := map[int]int{}
	for c := range codes {
		got[c]++
	}
	if got[202] != 5 || got[403] != 15 {
		t.Errorf("answers %v", got)
	}
	r.ask("demo", "2.93", "POST", "/v2.1/servers", fmt.Sprintf(`{"server": {"name": "q", "flavorRef": %q, "imageRef": %q, "networks": "none"}}`, f, activeImage)).
		says(403, "Quota exceeded for instances: Requested 1, but already used 5 of 5 instances")
	r.ask("admin", "2.93", "PUT", "/v2.1/os-quota-sets/"+demoProject, `{"quota_set": {"instances": 4}}`).
		says(400, "Quota limit 4 for instances must be greater than or equal to already used and reserved 5.")
}

func TestAnOrderOfSeveralGetsWhatFits(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	r.ask("admin", "2.93", "PUT", "/v2.1/os-quota-sets/"+demoProject, `{"quota_set": {"instances": 3}}`).is(200)
	r.ask("demo", "2.93", "POST", "/v2.1/servers", fmt.Sprintf(
		`{"server": {"name": "m", "flavorRef": %q, "imageRef": %q, "networks": "none", "min_count": 2, "max_count": 9, "return_reservation_id": true}}`, f, activeImage)).is(202).text("reservation_id")
	list := r.ask("demo", "2.93", "GET", "/v2.1/servers?sort_key=display_name&sort_dir=asc", nil).is(200)
	list.has("m-1", "servers", 0, "name").has("m-3", "servers", 2, "name")
}

func TestGroupMembersHaveAQuotaAndComeBack(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	group := r.ask("demo", "2.93", "POST", "/v2.1/os-server-groups", `{"server_group": {"name": "g", "policy": "affinity"}}`).is(200).text("server_group", "id")
	r.ask("admin", "2.93", "PUT", "/v2.1/os-quota-sets/"+demoProject, `{"quota_set": {"server_group_members": 1}}`).is(200)
	order := fmt.Sprintf(`{"server": {"name": "m", "flavorRef": %q, "imageRef": %q, "networks": "none"}, "os:scheduler_hints": {"group": %q}}`, f, activeImage, group)
	id := r.ask("demo", "2.93", "POST", "/v2.1/servers", order).is(202).text("server", "id")
	r.ask("demo", "2.93", "GET", "/v2.1/servers/"+id, nil).is(200).has(group, "server", "server_groups", 0)
	r.ask("demo", "2.93", "GET", "/v2.1/os-server-groups/"+group, nil).is(200).has(id, "server_group", "members", 0)
	g, err := r.service.GroupOf(t.Context(), id)
	if err != nil || g.UUID() != group || g.Policy() != "affinity" || len(g.Members()) != 1 {
		t.Errorf("group %v, %v", g, err)
	}
	r.ask("demo", "2.93", "POST", "/v2.1/servers", order).says(403, "Quota exceeded, too many servers in group")
	if _, err := r.cell.DestroyInstance(t.Context(), id, cell.AnyHost); err != nil {
		t.Fatal(err)
	}
	r.ask("demo", "2.93", "POST", "/v2.1/servers", order).is(202)
	r.ask("other", "2.93", "POST", "/v2.1/servers", order).says(400, "Instance group "+group+" could not be found.")
}

func TestWhatAHostCannotDoIsRefusedAndLeavesNoTask(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	id := r.server("demo", "a", f)
	path := "/v2.1/servers/" + id
	for _, c := range []struct {
		body   string
		status int
	}{
		{`{"resize": {"flavorRef": "x"}}`, 400},
		{`{"confirmResize": null}`, 409},
		{`{"revertResize": null}`, 409},
		{`{"migrate": null}`, 400},
		{`{"os-migrateLive": {"host": null, "block_migration": "auto"}}`, 400},
		{`{"evacuate": {}}`, 400},
		{`{"changePassword": {"adminPass": "x"}}`, 409},
	} {
		r.ask("admin", "2.93", "POST", path+"/action", c.body).is(c.status)
	}
	r.ask("demo", "2.93", "POST", path+"/remote-consoles", `{"remote_console": {"protocol": "vnc", "type": "novnc"}}`).says(400, "Unavailable console type novnc.")
	r.ask("demo", "2.93", "POST", path+"/remote-consoles", `{"remote_console": {"protocol": "serial", "type": "serial"}}`).is(200).has("ws://proxy/?token=x", "remote_console", "url")
	r.ask("demo", "2.93", "POST", path+"/os-interface", `{"interfaceAttachment": {"net_id": "`+privateNet+`"}}`).
		says(400, "Attaching interfaces is not supported by this host.")
	r.ask("demo", "2.93", "POST", path+"/os-volume_attachments", `{"volumeAttachment": {"volumeId": "`+freePort+`"}}`).
		says(400, "Invalid volume: volumes are not supported by this cloud.")
	i, err := r.cell.Instance(t.Context(), id)
	if err != nil || i.TaskState() != "" || i.VMState() != vmActive || i.Flavor().FlavorID() != f {
		t.Errorf("instance in task %q, %v", i.TaskState(), err)
	}
}

func TestLocksAreKeptByWhoMadeThem(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "a", r.flavor("tiny"))
	path := "/v2.1/servers/" + id + "/action"
	r.ask("demo", "2.93", "POST", path, `{"lock": {"locked_reason": "because"}}`).is(202)
	r.ask("demo", "2.93", "GET", "/v2.1/servers/"+id, nil).is(200).has(true, "server", "locked").has("because", "server", "locked_reason")
	r.ask("demo", "2.93", "POST", path, `{"os-stop": null}`).says(409, "Instance "+id+" is locked")
	r.ask("demo", "2.93", "DELETE", "/v2.1/servers/"+id, nil).says(409, "Instance "+id+" is locked")
	r.ask("demo", "2.93", "POST", path, `{"unlock": null}`).is(202)
	r.ask("admin", "2.93", "POST", path, `{"lock": null}`).is(202)
	r.ask("demo", "2.93", "POST", path, `{"unlock": null}`).says(403, "Policy doesn't allow os_compute_api:os-lock-server:unlock:unlock_override to be performed.")
	r.ask("admin", "2.93", "POST", path, `{"unlock": null}`).is(202)
	r.ask("demo", "2.93", "GET", "/v2.1/servers/"+id, nil).is(200).has(false, "server", "locked").has(nil, "server", "locked_reason")
}

func TestSecurityGroupsOfAServerAreThoseOfItsPorts(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "a", r.flavor("tiny"))
	r.networks.ports[0].DeviceID = id
	path := "/v2.1/servers/" + id
	r.ask("demo", "2.93", "GET", path, nil).is(200).has("default", "server", "security_groups", 0, "name")
	r.ask("demo", "2.93", "POST", path+"/action", `{"addSecurityGroup": {"name": "web"}}`).is(202)
	r.ask("demo", "2.93", "GET", path+"/os-security-groups", nil).is(200).has("web", "security_groups", 1, "name")
	r.ask("demo", "2.93", "GET", "/v2.1/servers/detail", nil).is(200).has("web", "servers", 0, "security_groups", 1, "name")
	r.ask("demo", "2.93", "POST", path+"/action", `{"removeSecurityGroup": {"name": "web"}}`).is(202)
	r.ask("demo", "2.93", "POST", path+"/action", `{"removeSecurityGroup": {"name": "web"}}`).is(404)
	r.ask("demo", "2.93", "GET", path+"/os-interface", nil).is(200).has("10.0.0.9", "interfaceAttachments", 0, "fixed_ips", 0, "ip_address")
}

func TestEventsGoToTheHostsOfTheirServers(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "a", r.flavor("tiny"))
	r.tasks.nowhere = true
	homeless := r.server("demo", "b", r.ask("demo", "2.93", "GET", "/v2.1/flavors", nil).text("flavors", 0, "id"))
	body := fmt.Sprintf(`{"events": [{"name": "network-vif-plugged", "server_uuid": %q, "tag": "p"}, {"name": "network-changed", "server_uuid": %q}, {"name": "network-changed", "server_uuid": %q}]}`, id, homeless, freePort)
	a := r.ask("admin", "2.93", "POST", "/v2.1/os-server-external-events", body).is(207)
	a.has(200, "events", 0, "code").has(422, "events", 1, "code").has(404, "events", 2, "code")
	r.hears("external_instance_event")
	if err := r.service.ServerExternalEvents(t.Context(), []ExternalEvent{{Name: "network-changed", ServerID: id, Status: "completed"}}); err != nil {
		t.Fatal(err)
	}
	r.hears("external_instance_event")
}

func TestListsHavePagesAndFilters(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	for _, name := range []string{"a1", "a2", "b1"} {
		r.server("demo", name, f)
	}
	first := r.ask("demo", "2.93", "GET", "/v2.1/servers?limit=2&sort_key=display_name&sort_dir=asc", nil).is(200).has("a1", "servers", 0, "name").has("a2", "servers", 1, "name")
	next := first.text("servers_links", 0, "href")
	r.ask("demo", "2.93", "GET", strings.TrimPrefix(next, "http://example.com"), nil).is(200).has("b1", "servers", 0, "name")
	for query, want := range map[string]int{
		"": 3, "name=a": 2, "name=^b": 1, "status=ACTIVE": 3, "status=SHUTOFF": 0, "flavor=" + f: 3, "flavor=none": 0, "ip=10.0.0": 3, "ip=192": 0,
		"image=" + activeImage: 3, "limit=0": 0, "tags=x": 0, "deleted=true": 3, "changes-since=2001-01-01T00:00:00Z": 3, "locked=true": 0,
	} {
		list, _ := r.ask("demo", "2.93", "GET", "/v2.1/servers?"+query, nil).is(200).get("servers").([]any)
		if len(list) != want {
			t.Errorf("%s: %d servers, want %d", query, len(list), want)
		}
	}
	r.ask("demo", "2.93", "GET", "/v2.1/servers?marker=none", nil).says(400, "marker [none] not found")
	r.ask("demo", "2.93", "GET", "/v2.1/servers?sort_key=host", nil).says(403, "Only administrators can sort servers by host")
}

// BenchmarkList lists a thousand servers in full.
func BenchmarkList(b *testing.B) {
	r := newRigIn(b, b.TempDir())
	flavor := &Flavor{Name: "tiny", MemoryMB: 64, VCPUs: 1, RootGB: 1, Public: true}
	if err := r.service.AddFlavor(b.Context(), flavor); err != nil {
		b.Fatal(err)
	}
	rows := make([]cell.NewInstance, pageSize)
	for n := range rows {
		i := objects.NewInstance()
		for field, v := range map[string]any{
			"project_id": demoProject, "display_name": fmt.Sprint("s", n), "vm_state": vmActive, "host": host, "flavor": flavor.object(),
			"metadata": map[string]string{"a": "b"}, "image_ref": activeImage,
		} {
			i.Set(field, v)
		}
		rows[n].Instance = i
	}
	if _, err := r.cell.CreateInstances(b.Context(), cell.Create{Instances: rows}); err != nil {
		b.Fatal(err)
	}
	r.t = &testing.T{}
	for b.Loop() {
		if a := r.ask("demo", "2.93", "GET", "/v2.1/servers/detail", nil); a.Code != 200 {
			b.Fatal(a.Body)
		}
	}
}
