//go:build functional

package dashboard

import "os"

// operator is an admin, at the pages below Admin and Identity.
type operator struct{ *browser }

func (b operator) overview() {
	b.open("/admin/")
	b.wants("Usage Summary", "demo")
	b.look("admin-overview")
}

func (b operator) hypervisors() {
	b.open("/admin/hypervisors/")
	b.wants("Hypervisor Summary", "Used 1 of")
	b.look("admin-hypervisors")
	b.follow(b.host())
	b.wants("instance-")
	b.look("admin-hypervisor")
	b.open("/admin/hypervisors/?tab=hypervisor_info__compute_host")
	b.wants("Enabled", "Up")
	b.look("admin-compute-hosts")
	b.row("nova", "Disable Service")
	b.fill("#id_reason", "walked")
	b.look("admin-disable-service")
	b.submit("Disable Service")
	b.open("/admin/hypervisors/?tab=hypervisor_info__compute_host")
	b.wants("Disabled")
	b.row("nova", "Enable Service")
	b.wants("Enabled")
}

func (b operator) flavors() {
	b.open("/admin/flavors/")
	b.wants("m1.tiny", "m1.large")
	b.look("admin-flavors")
	b.press("Create Flavor")
	b.fill("#id_name", "walk.flavor")
	b.fill("#id_vcpus", "1")
	b.fill("#id_memory_mb", "128")
	b.fill("#id_disk_gb", "1")
	b.look("admin-flavor-form")
	b.submit("Create Flavor")
	b.wants("walk.flavor", "128MB")
	b.row("walk.flavor", "Update Metadata")
	b.item("hw:cpu_policy", "shared")
	b.look("admin-flavor-metadata")
	b.submit("Save")
	b.open("/admin/flavors/")
	b.row("walk.flavor", "Delete Flavor")
	b.submit("Delete Flavor")
	b.lacks("walk.flavor")
	b.look("admin-flavors-after")
}

func (b operator) instances() {
	b.open("/admin/instances/")
	b.wants("tenants", "demo", b.host())
	b.look("admin-instances")
	b.follow("tenants")
	b.look("admin-instance")
	b.open("/admin/instances/")
	b.row("tenants", "Migrate Instance")
	b.look("admin-migrate")
	b.submit("Cancel")
	b.open("/admin/instances/")
	b.row("tenants", "Live Migrate Instance")
	b.look("admin-live-migrate")
	b.submit("Cancel")
}

func (b operator) aggregates() {
	b.open("/admin/aggregates/")
	b.look("admin-aggregates")
	b.press("Create Host Aggregate")
	b.fill("#id_name", "walk-aggregate")
	b.fill("#id_availability_zone", "walk-zone")
	b.look("admin-aggregate-form")
	b.submit("Create Host Aggregate")
	b.wants("walk-aggregate", "walk-zone")
	b.row("walk-aggregate", "Manage Hosts")
	b.look("admin-aggregate-hosts")
	b.submit("Cancel")
	b.open("/admin/aggregates/")
	b.row("walk-aggregate", "Delete Host Aggregate")
	b.submit("Delete Host Aggregate")
	b.lacks("walk-aggregate")
	b.look("admin-aggregates-after")
}

func (b operator) images() {
	b.open("/admin/images/")
	b.wants("busybox")
	b.look("admin-images")
}

func (b operator) networks() {
	b.open("/admin/networks/")
	b.wants("private", "public", "10.0.0.0/22")
	b.look("admin-networks")
	b.follow("private")
	b.look("admin-network")
	b.tab("network_tabs__ports_tab")
	b.wants("10.0.0.")
	b.look("admin-network-ports")
	b.open("/admin/routers/")
	b.wants("router")
	b.look("admin-routers")
	b.open("/admin/floating_ips/")
	b.look("admin-floating-ips")
}

func (b operator) system() {
	b.open("/admin/defaults/")
	b.wants("VCPUs", "Instances")
	b.look("admin-defaults")
	b.open("/admin/defaults/?tab=defaults__network_quotas")
	b.wants("Floating IPs")
	b.look("admin-defaults-network")
	b.open("/admin/metadata_defs/")
	b.wants("No items to display.")
	b.look("admin-metadata-definitions")
	b.open("/admin/info/")
	b.wants("keystone", "nova", "glance", "neutron", "placement")
	b.look("admin-info")
	b.open("/admin/info/?tab=system_info__nova_services")
	b.wants("nova-compute", "nova-conductor", "nova-scheduler")
	b.look("admin-info-compute")
	b.open("/admin/info/?tab=system_info__network_agents")
	b.look("admin-info-agents")
}

func (b operator) projects() {
	b.open("/identity/")
	b.wants("admin", "demo")
	b.look("projects")
	b.press("Create Project")
	b.fill("#id_name", "walk-project")
	b.look("project-form")
	b.submit("Create Project")
	b.wants("walk-project")
	b.row("walk-project", "Modify Quotas")
	b.look("project-quotas")
	b.submit("Cancel")
	b.open("/identity/")
	b.follow("walk-project")
	b.look("project")
}

func (b operator) users() {
	b.open("/identity/users/")
	b.wants("admin", "demo")
	b.look("users")
	b.press("Create User")
	b.fill("#id_name", "walk-user")
	b.fill("#id_password", "walk-password")
	b.fill("#id_confirm_password", "walk-password")
	b.choose("#id_project", "walk-project")
	b.look("user-form")
	b.submit("Create User")
	b.wants("walk-user")
	b.follow("walk-user")
	b.look("user")
	b.tab("user_details__roleassignments")
	b.wants("walk-project")
	b.look("user-roles")
}

func (b operator) roles() {
	b.open("/identity/roles/")
	b.wants("admin", "member", "reader")
	b.look("roles")
	b.press("Create Role")
	b.fill(".modal input[name=name]", "walk-role")
	b.submit("Submit")
	b.wants("walk-role")
	b.look("roles-after")
	b.open("/identity/groups/")
	b.look("groups")
	b.open("/identity/application_credentials/")
	b.press("Create Application Credential")
	b.fill("#id_name", "walk-credential")
	b.look("credential-form")
	b.click(".modal input[type=submit]", "Create Application Credential")
	b.wants("Your application credential")
	b.until("the secret is told", `document.querySelector('#id_app_cred_secret').value.length > 20`)
	b.look("credential-secret", "will not be available after closing")
	b.open("/identity/application_credentials/")
	b.wants("walk-credential")
	b.look("credentials")
}

func (b operator) host() string {
	b.t.Helper()
	name, err := os.Hostname()
	if err != nil {
		b.t.Fatal(err)
	}
	return name
}

// changes are what an operator changes for others.
func (b operator) changes() {
	b.open("/admin/aggregates/")
	b.press("Create Host Aggregate")
	b.fill("#id_name", "change-aggregate")
	b.fill("#id_availability_zone", "change-zone")
	b.submit("Create Host Aggregate")
	b.row("change-aggregate", "Update Metadata")
	b.item("kind", "containers")
	b.look("admin-aggregate-metadata")
	b.submit("Save")
	b.wants("kind = containers")
	b.row("change-aggregate", "Edit Host Aggregate")
	b.fill("#id_name", "changed-aggregate")
	b.click(".modal input[type=submit]", "")
	b.until("the form is gone", `!document.querySelector('.modal.in') && `+settled)
	b.wants("changed-aggregate")
	b.look("admin-aggregate-changed")
}

func (b operator) createNetwork() {
	b.open("/admin/networks/")
	b.press("Create Network")
	b.fill("#id_name", "change-admin-net")
	b.choose("#id_tenant_id", "demo")
	b.choose("#id_network_type", "Local")
	b.look("admin-network-form")
	b.click("label[for=id_with_subnet]", "")
	b.submit("Create")
	b.wants("change-admin-net")
	b.row("change-admin-net", "Edit Network")
	b.click("label[for=id_shared]", "")
	b.submit("Save Changes")
	b.row("change-admin-net", "Delete Network")
	b.submit("Delete Network")
	b.until("the network is gone", `![...document.querySelectorAll('tr')].some(e => e.innerText.includes('change-admin-net')) && `+settled)
	b.look("admin-network-gone")
}

func (b operator) quotas() {
	b.open("/identity/")
	b.row("demo", "Modify Quotas")
	b.fill("#id_instances", "7")
	b.press("Network")
	b.fill("#id_floatingip", "9")
	b.look("quotas-form")
	b.submit("Save")
	b.look("quotas-saved")
	b.open("/identity/")
	b.row("demo", "Modify Quotas")
	b.until("the quota is kept", `document.querySelector('#id_instances').value === '7' && document.querySelector('#id_floatingip').value === '9'`)
	b.submit("Cancel")
	b.open("/admin/defaults/")
	b.press("Update Defaults")
	b.fill("#id_instances", "12")
	b.look("defaults-form")
	b.submit("Update Defaults")
	b.look("defaults-saved")
}

func (b operator) members() {
	b.open("/identity/groups/")
	b.press("Create Group")
	b.fill("#id_name", "change-group")
	b.look("group-form")
	b.submit("Create Group")
	b.row("change-group", "Manage Members")
	b.look("group-members")
	b.open("/identity/")
	b.row("demo", "Manage Members")
	b.look("project-members")
	b.submit("Cancel")
	b.open("/identity/")
	b.row("demo", "Edit Project")
	b.fill("#id_description", "for a first look")
	b.submit("Save")
	b.wants("for a first look")
	b.open("/identity/users/")
	b.row("demo", "Change Password")
	b.look("user-password-form")
	b.submit("Cancel")
	b.open("/identity/users/")
	b.row("walk-user", "Disable User")
	b.wants("Disabled User: walk-user")
	b.look("user-disabled")
	b.row("walk-user", "Enable User")
	b.wants("Enabled User: walk-user")
}

func (b operator) others() {
	b.open("/admin/instances/")
	b.row("tenants", "Shut Off Instance")
	b.submit("Shut Off Instance")
	b.wants("Shutoff")
	b.look("admin-instance-off")
	b.open("/admin/instances/")
	b.row("tenants", "Delete Instance")
	b.submit("Delete Instance")
	b.wants("No items to display.")
	b.open("/admin/floating_ips/")
	b.press("Allocate IP To Project")
	b.choose("#id_pool", "public")
	b.choose("#id_tenant", "demo")
	b.look("admin-floating-ip-form")
	b.submit("Allocate Floating IP")
	b.wants("172.24.4.", "demo")
	b.look("admin-floating-ip")
	b.open("/admin/routers/")
	b.follow("router")
	b.wants("External Gateway")
	b.look("admin-router")
}

func (b operator) sharing() {
	b.open("/admin/rbac_policies/")
	b.look("rbac")
	b.press("Create RBAC Policy")
	b.choose("#id_target_tenant", "demo")
	b.choose("#id_action_object_type", "Shared Network")
	b.choose("#id_network_id", "public")
	b.look("rbac-form")
	b.submit("Create RBAC Policy")
	b.until("the policy is there", `[...document.querySelectorAll('tr')].some(e => e.innerText.includes('public') && e.innerText.includes('demo'))`)
	b.look("rbac-made")
	b.row("demo", "Delete RBAC Policy")
	b.submit("Delete RBAC Policy")
	b.wants("Deleted RBAC Policy")
}
