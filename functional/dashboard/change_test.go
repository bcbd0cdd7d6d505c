//go:build functional

package dashboard

import "strings"

// changer is a member of a project with a network, a router and an instance, who
// changes them.
type changer struct {
	*browser
	password string
}

func (b changer) apiAccess() {
	b.open("/project/api_access/")
	b.wants("Identity", "Compute", "/compute/v2.1")
	b.look("api-access")
	for path, want := range map[string]string{"/project/api_access/openrc/": "/identity/v3", "/project/api_access/clouds.yaml/": "auth_url"} {
		if text := b.fetch(path); !strings.Contains(text, want) {
			b.t.Errorf("%s is %q", path, text)
		}
	}
}

func (b changer) network() {
	b.open("/project/networks/")
	b.press("Create Network")
	b.fill("#id_net_name", "change-net")
	b.press("Next »")
	b.fill("#id_subnet_name", "change-subnet")
	b.fill("#id_cidr", "10.78.0.0/24")
	b.press("Next »")
	b.fill("#id_dns_nameservers", "192.0.2.53")
	b.fill("#id_host_routes", "192.0.2.0/24,10.78.0.99")
	b.look("subnet-details-form")
	b.submit("Create")
	b.follow("change-net")
	b.tab("network_tabs__subnets_tab")
	b.follow("change-subnet")
	b.wants("192.0.2.53", "10.78.0.99")
	b.look("subnet")
	b.follow("change-net")
	b.tab("network_tabs__subnets_tab")
	b.row("change-subnet", "Edit Subnet")
	b.fill("#id_subnet_name", "changed-subnet")
	b.look("subnet-edit-form")
	b.press("Next »")
	b.submit("Save")
	b.wants("changed-subnet")
	b.open("/project/networks/")
	b.row("change-net", "Edit Network")
	b.fill("#id_name", "changed-net")
	b.look("network-edit-form")
	b.submit("Save Changes")
	b.wants("changed-net")
	b.look("networks-changed")
}

func (b changer) port() {
	b.open("/project/networks/")
	b.follow("changed-net")
	b.tab("network_tabs__ports_tab")
	b.press("Create Port")
	b.fill("#id_name", "change-port")
	b.look("port-form")
	b.submit("Create")
	b.tab("network_tabs__ports_tab")
	b.wants("change-port")
	b.look("ports")
	b.follow("change-port")
	b.wants("Fixed IP", "10.78.0.")
	b.look("port")
	b.tab("port_details__allowed_address_pairs")
	b.press("Add Allowed Address Pair")
	b.fill("#id_ip", "10.78.0.200")
	b.look("pair-form")
	b.submit("Submit")
	b.tab("port_details__allowed_address_pairs")
	b.wants("10.78.0.200")
	b.look("port-pairs")
	b.open("/project/networks/")
	b.follow("changed-net")
	b.tab("network_tabs__ports_tab")
	b.row("change-port", "Edit Port")
	b.fill("#id_name", "changed-port")
	b.look("port-edit-form")
	b.submit("Update")
	b.tab("network_tabs__ports_tab")
	b.wants("changed-port")
}

func (b changer) router() {
	b.open("/project/routers/")
	b.press("Create Router")
	b.fill("#id_name", "change-router")
	b.choose("#id_external_network", "public")
	b.submit("Create Router")
	b.row("change-router", "Edit Router")
	b.fill("#id_name", "changed-router")
	b.look("router-edit-form")
	b.submit("Save Changes")
	b.follow("changed-router")
	b.tab("router_details__interfaces")
	b.press("Add Interface")
	b.choose("#id_subnet_id", "changed-net")
	b.submit("Submit")
	b.tab("router_details__extraroutes")
	b.press("Add Static Route")
	b.fill("#id_destination", "198.51.100.0/24")
	b.fill("#id_nexthop", "10.78.0.77")
	b.look("route-form")
	b.submit("Submit")
	b.tab("router_details__extraroutes")
	b.wants("198.51.100.0/24", "10.78.0.77")
	b.look("router-routes")
	b.open("/project/routers/")
	b.row("changed-router", "Clear Gateway")
	b.submit("Clear Gateway")
	b.row("changed-router", "Set Gateway")
	b.choose("#id_network_id", "public")
	b.look("gateway-form")
	b.submit("Submit")
	b.wants("public")
	b.look("routers-changed")
}

// importKey has Horizon keep a public key.
func (b changer) importKey() {
	b.open("/project/key_pairs/")
	b.press("Import Public Key")
	b.fill(".modal input[name=name]", "change-key")
	b.fill(".modal textarea", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7+SltVmnO1Ps3qZEyHR5QfkzK2lUKkWNZm0Vp1ZTbD me@there")
	b.look("key-import-form")
	b.submit("Import Public Key")
	b.wants("change-key")
	b.follow("change-key")
	b.wants("ssh-ed25519", "Fingerprint")
	b.look("key-pair")
}

func (b changer) rules() {
	b.open("/project/security_groups/")
	b.row("default", "Manage Rules")
	for _, rule := range []string{"All ICMP", "HTTP", "All UDP"} {
		b.press("Add Rule")
		b.choose("#id_rule_menu", rule)
		b.submit("Add")
	}
	b.press("Add Rule")
	b.choose("#id_rule_menu", "Custom TCP Rule")
	b.choose("#id_port_or_range", "Port Range")
	b.fill("#id_from_port", "8000")
	b.fill("#id_to_port", "8010")
	b.choose("#id_remote", "Security Group")
	b.look("rule-custom-form")
	b.submit("Add")
	b.wants("ICMP", "80 (HTTP)", "8000 - 8010")
	b.look("rules-changed")
	b.row("8000 - 8010", "Delete Rule")
	b.submit("Delete Rule")
	b.until("the rule is gone", `![...document.querySelectorAll('tr')].some(e => e.innerText.includes('8000 - 8010')) && `+settled)
}

// actions are those that no other walk has; what may be refused stays as it was.
func (b changer) actions() {
	for _, action := range []string{"Hard Reboot Instance", "Create Snapshot"} {
		b.open("/project/instances/")
		b.row("changing", action)
		if action == "Create Snapshot" {
			b.fill(".modal #id_name", "changed")
		}
		b.submit(action)
		b.open("/project/instances/")
		b.atRest()
		b.wants("Active", "Running")
		b.look("action-" + strings.ReplaceAll(strings.ToLower(action), " ", "-"))
	}
	b.follow("changing")
	b.tab("instance_details__audit")
	b.wants("Create", "Reboot")
	b.look("actions")
	// a second instance, of the snapshot, from the list of images
	b.open("/project/images/")
	b.row("changed", "Launch")
	b.fill(".modal #name", "again")
	b.press("Next")
	b.wants("changed")
	b.press("Next")
	b.row("m1.tiny", "")
	b.press("Next")
	b.row("changed-net", "")
	b.submit("Launch Instance")
	b.open("/project/instances/")
	b.until("both run", `document.querySelectorAll('tr.status_up').length === 2`)
	b.look("of-a-snapshot")
}

func (b changer) settings() {
	b.open("/settings/")
	b.wants("User Settings", "Timezone")
	b.look("settings")
	b.open("/settings/password/")
	b.fill("#id_current_password", b.password)
	b.fill("#id_new_password", "another-password")
	b.fill("#id_confirm_password", "another-password")
	b.look("password-form")
	b.press("Change")
	b.wants("Log in")
	b.look("password-changed")
	b.login("demo", "another-password")
	b.wants("demo")
}
