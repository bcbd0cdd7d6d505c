//go:build functional

package dashboard

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// tenant is a member of a project, at the pages below Project.
type tenant struct{ *browser }

func (b tenant) overview() {
	b.open("/project/")
	b.wants("Overview", "Limit Summary", "Used 0 of 10")
	b.lacks("Volumes")
	b.look("overview")
	b.open("/project/instances/")
	b.wants("No items to display.")
	b.look("no-instances")
}

func (b tenant) keyPair() {
	b.open("/project/key_pairs/")
	b.press("Create Key Pair")
	b.fill(".modal input[name=name]", "walk-key")
	b.look("key-pair-form")
	b.submit("Create Key Pair")
	b.wants("walk-key", "ssh")
	b.look("key-pairs")
}

func (b tenant) serverGroup() {
	b.open("/project/server_groups/")
	b.press("Create Server Group")
	b.fill(".modal input[name=name]", "walk-apart")
	b.choose(".modal select", "Soft Anti Affinity")
	b.look("server-group-form")
	b.submit("Submit")
	b.wants("walk-apart")
	b.look("server-groups")
}

func (b tenant) securityGroup() {
	b.open("/project/security_groups/")
	b.press("Create Security Group")
	b.fill("#id_name", "walk-web")
	b.fill("#id_description", "let in")
	b.look("security-group-form")
	b.submit("Create Security Group")
	b.wants("walk-web", "Add Rule")
	b.press("Add Rule")
	b.choose("#id_rule_menu", "SSH")
	b.look("rule-form")
	b.submit("Add")
	b.wants("22 (SSH)")
	b.look("rules")
	b.open("/project/security_groups/")
	b.wants("walk-web", "default")
	b.look("security-groups")
}

func (b tenant) network() {
	b.open("/project/networks/")
	b.wants("private", "public")
	b.press("Create Network")
	b.fill("#id_net_name", "walk-net")
	b.look("network-form")
	b.press("Next »")
	b.fill("#id_subnet_name", "walk-subnet")
	b.fill("#id_cidr", "10.77.0.0/24")
	b.press("Next »")
	b.submit("Create")
	b.wants("walk-net")
	b.look("networks")
	b.follow("walk-net")
	b.wants("Subnets", "Ports")
	b.look("network")
	b.tab("network_tabs__subnets_tab")
	b.wants("walk-subnet", "10.77.0.0/24")
	b.look("network-subnets")
}

func (b tenant) router() {
	b.open("/project/routers/")
	b.press("Create Router")
	b.fill("#id_name", "walk-router")
	b.choose("#id_external_network", "public")
	b.look("router-form")
	b.submit("Create Router")
	b.wants("walk-router")
	b.look("routers")
	b.follow("walk-router")
	b.wants("External Gateway")
	b.look("router")
	b.tab("router_details__interfaces")
	b.press("Add Interface")
	b.choose("#id_subnet_id", "walk-net")
	b.look("router-interface-form")
	b.submit("Submit")
	b.wants("10.77.0.1")
	b.tab("router_details__interfaces")
	b.wants("10.77.0.1", "Internal Interface")
	b.look("router-interfaces")
}

func (b tenant) floatingIP() {
	b.open("/project/floating_ips/")
	b.press("Allocate IP To Project")
	b.look("floating-ip-form")
	b.submit("Allocate IP")
	b.wants("172.24.4.", "Down")
	b.look("floating-ips")
}

func (b tenant) images() {
	b.open("/project/images/")
	b.wants("busybox", "Active", "Public")
	b.look("images")
	b.follow("busybox")
	b.wants("Disk Format", "Checksum")
	b.look("image")
}

func (b tenant) launch() {
	b.open("/project/instances/")
	b.press("Launch Instance")
	b.fill(".modal #name", "walker")
	b.look("launch-details")
	b.press("Next")
	b.wants("busybox")
	b.row("busybox", "")
	b.look("launch-source")
	b.press("Next")
	b.row("m1.tiny", "")
	b.look("launch-flavor")
	b.press("Next")
	b.row("private", "")
	b.look("launch-networks")
	b.press("Next")
	b.look("launch-ports")
	b.press("Next")
	b.row("walk-web", "")
	b.look("launch-security-groups")
	b.press("Next")
	b.look("launch-key-pair")
	b.press("Next")
	b.fill(".modal textarea", "#!/bin/sh\n")
	b.look("launch-configuration")
	b.press("Next")
	b.row("walk-apart", "")
	b.look("launch-server-groups")
	b.press("Next")
	b.look("launch-hints")
	b.press("Next")
	b.look("launch-metadata")
	b.submit("Launch Instance")
	b.wants("walker", "Active", "Running")
	b.look("instances")
}

func (b tenant) instance() {
	b.open("/project/instances/")
	b.follow("walker")
	// Horizon of Zed asks for a server in a microversion without flavor ids, and says of the flavor that it is not available
	b.wants("walker", "walk-key", "busybox", "walk-web", "private")
	b.look("instance")
	page := ask[string](b.browser, "location.pathname")
	b.open(page + "?tab=instance_details__interfaces")
	b.wants("private", "10.0.")
	b.look("instance-interfaces")
	b.open(page + "?tab=instance_details__log")
	b.wants("this is walker, a container", "BusyBox")
	b.lacks("can't access tty")
	b.look("instance-log")
	b.press("Console")
	b.wants("Instance Console", "show only console")
	b.lacks("Unable to load console")
	b.look("instance-console")
	b.open(page + "?tab=instance_details__audit")
	b.wants("Action Log", "Create")
	b.look("instance-actions")
}

func (b tenant) associate() {
	b.open("/project/instances/")
	b.row("walker", "Associate Floating IP")
	b.choose("#id_ip_id", "172.24.4.")
	b.look("associate-form")
	b.submit("Associate")
	b.open("/project/instances/")
	b.wants("172.24.4.")
	b.look("instances-floating-ip")
}

func (b tenant) metadata() {
	b.open("/project/instances/")
	b.row("walker", "Update Metadata")
	b.item("purpose", "walk")
	b.look("metadata-form")
	b.submit("Save")
	b.open("/project/instances/")
	b.follow("walker")
	b.tab("instance_details__overview")
	b.wants("purpose", "walk")
	b.look("instance-metadata")
}

func (b tenant) editSecurityGroups() {
	b.open("/project/instances/")
	b.row("walker", "Edit Security Groups")
	b.look("edit-security-groups")
	b.submit("Cancel")
}

func (b tenant) editInstance() {
	b.open("/project/instances/")
	b.row("walker", "Edit Instance")
	b.fill("#id_name", "wanderer")
	b.fill("#id_description", "renamed")
	b.look("edit-instance")
	b.submit("Save")
	b.wants("wanderer")
}

func (b tenant) interface1() {
	b.open("/project/instances/")
	b.row("wanderer", "Attach Interface")
	b.look("attach-interface-form")
	b.submit("Cancel")
	b.open("/project/instances/")
	b.row("wanderer", "Detach Interface")
	b.look("detach-interface-form")
	b.submit("Cancel")
}

func (b tenant) resize() {
	b.open("/project/instances/")
	b.row("wanderer", "Resize Instance")
	b.choose("#id_flavor", "m1.small")
	b.look("resize-form")
	b.submit("Cancel")
}

func (b tenant) snapshot() {
	b.open("/project/instances/")
	b.row("wanderer", "Create Snapshot")
	b.fill(".modal #id_name", "walk-snap")
	b.look("snapshot-form")
	b.submit("Create Snapshot")
	b.wants("walk-snap", "Snapshot")
	b.open("/project/images/")
	b.wants("walk-snap", "Active")
	b.look("snapshots")
	b.follow("walk-snap")
	b.look("snapshot")
}

func (b tenant) power() {
	for _, leg := range []struct{ action, confirm, after string }{
		{"Pause Instance", "", "Paused"},
		{"Resume Instance", "", "Running"},
		{"Lock Instance", "", "Locked"},
		{"Unlock Instance", "", "Unlocked"},
		{"Soft Reboot Instance", "Soft Reboot Instance", "Running"},
		{"Shut Off Instance", "Shut Off Instance", "Shutoff"},
		{"Start Instance", "", "Active"},
	} {
		b.open("/project/instances/")
		b.row("wanderer", leg.action)
		if leg.confirm != "" {
			b.submit(leg.confirm)
		}
		b.wants(leg.after)
		b.atRest()
		b.look("power-" + strings.ReplaceAll(strings.ToLower(leg.action), " ", "-"))
	}
}

func (b tenant) topology() {
	b.open("/project/network_topology/")
	b.click(".btn", "Normal")
	b.until("the instance is drawn", `document.querySelector('#topologyCanvasContainer svg').textContent.includes('wanderer')`)
	b.look("topology")
	b.press("Graph")
	b.press("Center Topology")
	b.look("topology-graph")
}

func (b tenant) usage() {
	b.open("/project/")
	b.wants("Used 1 of 10", "wanderer")
	b.look("overview-used")
}

func (b tenant) createImage() {
	b.open("/project/images/")
	b.press("Create Image")
	b.fill("#imageForm-name", "walk-image")
	file := filepath.Join(b.t.TempDir(), "walk.raw")
	if err := os.WriteFile(file, bytes.Repeat([]byte("walk"), 1<<18), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.upload("#imageForm-image_file", file)
	b.choose("#imageForm-format", "Raw")
	b.look("image-form")
	b.submit("Create Image")
	b.wants("walk-image", "1.00 MB")
	b.look("images-created")
	b.row("walk-image", "Edit Image")
	b.fill(".modal #imageForm-description", "carried here")
	b.look("image-edit")
	b.submit("Update Image")
	b.row("walk-image", "Delete Image")
	b.look("image-delete")
	b.submit("Delete Image")
	b.lacks("walk-image")
}

// refusals are what the cloud says no to; Horizon shows its words.
func (b tenant) refusals() {
	b.open("/project/security_groups/")
	b.row("walk-web", "Manage Rules")
	b.press("Add Rule")
	b.choose("#id_rule_menu", "SSH")
	b.submit("Add")
	b.wants("Security group rule already exists")
	b.look("rule-refused", "Security group rule already exists")
	b.open("/project/networks/")
	b.row("walk-net", "Delete Network")
	b.submit("Delete Network")
	b.wants("walk-net")
	b.look("network-refused", "Unable to delete network walk-net")
}

func (b tenant) delete() {
	b.open("/project/instances/")
	b.row("wanderer", "Delete Instance")
	b.look("delete-instance")
	b.submit("Delete Instance")
	b.wants("No items to display.")
	b.look("deleted")
}

func (b tenant) cleanUp() {
	for _, thing := range []struct{ page, row, action, confirm string }{
		{"/project/floating_ips/", "172.24.4.", "Release Floating IP", "Release Floating IP"},
		{"/project/routers/", "walk-router", "Delete Router", "Delete Router"},
		{"/project/networks/", "walk-net", "Delete Network", "Delete Network"},
		{"/project/security_groups/", "walk-web", "Delete Security Group", "Delete Security Group"},
		{"/project/key_pairs/", "walk-key", "Delete Key Pair", "Delete Key Pair"},
		{"/project/server_groups/", "walk-apart", "Delete Server Group", "Delete Server Group"},
		{"/project/images/", "walk-snap", "Delete Image", "Delete Image"},
	} {
		b.open(thing.page)
		b.row(thing.row, thing.action)
		b.submit(thing.confirm)
		b.until(thing.row+" is gone", `![...document.querySelectorAll('tr')].some(e => e.innerText.includes(`+quote(thing.row)+`)) && `+settled)
		b.look("no-more-" + strings.ReplaceAll(strings.TrimPrefix(strings.Trim(thing.page, "/"), "project/"), "_", "-"))
	}
}

func (b tenant) leave() {
	b.open("/admin/")
	b.lacks("Hypervisors")
	b.look("not-an-admin", "401", "403", "not authorized")
	b.open("/auth/logout/")
	b.wants("Log in")
	b.fill("#id_username", "demo")
	b.fill("#id_password", "not the password")
	b.press("Sign In")
	b.wants("Invalid credentials.")
	b.look("wrong-password", "Invalid credentials.")
}

// atRest waits until nothing is under way on the only instance.
func (b *browser) atRest() {
	b.t.Helper()
	b.until("nothing is under way", `document.querySelector('tr[data-object-id]').cells[9].innerText.trim() === 'None'`)
}
