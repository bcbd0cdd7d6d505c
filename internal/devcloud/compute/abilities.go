package compute

import "github.com/gantry-project/gantry/driver/objects"

// able reports whether the compute hosts of this cloud do an RPC method of
// nova-compute. What needs another one is refused before anything changes,
// instead of being accepted and failing on the host. Who teaches the hosts a
// method names it here.
func able(method string) bool {
	switch method {
	case "build_and_run_instance", "terminate_instance", "soft_delete_instance", "restore_instance",
		"start_instance", "stop_instance", "reboot_instance", "pause_instance", "unpause_instance",
		"snapshot_instance", "backup_instance", "rebuild_instance", "shelve_instance", "shelve_offload_instance", "unshelve_instance",
		"prep_resize", "confirm_resize", "revert_resize",
		"rescue_instance", "unrescue_instance", "suspend_instance", "resume_instance", "trigger_crash_dump",
		"inject_network_info", "attach_interface", "set_admin_password":
		return true
	case "detach_interface", "add_fixed_ip_to_instance", "remove_fixed_ip_from_instance":
		return true
	}
	return false
}

// unable is the refusal of a verb that the hosts do not do, with the status that
// Nova has for it where an instance or its host cannot do what is asked.
func unable(verb string, i objects.Instance) error {
	switch verb {
	case "rescue":
		return badRequest("Instance %s cannot be rescued: its compute host does not support it.", i.UUID())
	case "trigger_crash_dump":
		return badRequest("Triggering crash dump is not supported")
	case "changePassword":
		return conflict("Set admin password is not supported")
	case "migrate", "os-migrateLive":
		return badRequest("No valid host was found. No host of this cloud takes in instances of another.")
	case "evacuate":
		return badRequest("Compute service of %s is still in use.", i.Host())
	}
	return conflict("Operation '%s' not supported for instance %s: its compute host does not do it.", verb, i.UUID())
}

// may holds a verb against what the hosts do.
func (a verb) may(i objects.Instance) error {
	if a.needs == "" || able(a.needs) && a.run != nil {
		return nil
	}
	return unable(a.name, i)
}
