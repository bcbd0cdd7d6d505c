package compute_test

import (
	"encoding/json"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// What is not done is refused with Nova's own word, and the instance is
// afterwards as it was: nothing hangs in a task, nothing goes to error.
func TestRefusals(t *testing.T) {
	tests := []struct {
		method, task string
		args         map[string]any
		class        string
	}{
		{"get_vnc_console", "", map[string]any{"console_type": "novnc"}, "ConsoleTypeUnavailable"},
		{"get_serial_console", "", map[string]any{"console_type": "serial"}, "ConsoleTypeUnavailable"},
		{"reserve_block_device_name", "", map[string]any{"volume_id": "x"}, "InvalidVolume"},
		{"attach_volume", "", map[string]any{"bdm": nil}, "InvalidVolume"},
		{"prep_snapshot_based_resize_at_dest", "", nil, "MigrationPreCheckError"},
		{"prep_snapshot_based_resize_at_source", "resize_prep", nil, "MigrationPreCheckError"},
		{"check_can_live_migrate_destination", "migrating", nil, "MigrationPreCheckError"},
		{"pre_live_migration", "migrating", nil, "MigrationPreCheckError"},
	}
	for _, tc := range tests {
		t.Run(tc.method, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			r.images.add("img-1")
			rc := r.context(inst.String("uuid"), tc.method)
			var task any
			if tc.task != "" {
				task = tc.task
			}
			r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", task) })
			args := map[string]any{"instance": r.row(inst)}
			for k, v := range tc.args {
				args[k] = v
			}
			if err := r.call(rc, tc.method, args, nil); !messaging.IsRemote(err, tc.class) {
				t.Errorf("error = %v, want %s", err, tc.class)
			}
			row := r.row(inst)
			if row.String("vm_state") != "active" || !row.IsNull("task_state") && tc.task != "migrating" || row.String("host") != host {
				t.Errorf("state %s/%s on %s", row.String("vm_state"), row.String("task_state"), row.String("host"))
			}
			r.settled(inst)
			r.wantPower(inst, driver.PowerRunning)
			if tc.args["image_id"] != nil && r.images.get("img-1") != nil {
				t.Error("the image record of the API was left")
			}
		})
	}
}

// Every method of the reference is in the table, on both versions.
func TestMethodsAreComplete(t *testing.T) {
	want := []string{
		"build_and_run_instance", "terminate_instance", "stop_instance", "start_instance", "reboot_instance", "rebuild_instance",
		"soft_delete_instance", "restore_instance", "pause_instance", "unpause_instance", "suspend_instance", "resume_instance",
		"rescue_instance", "unrescue_instance", "set_admin_password", "snapshot_instance", "backup_instance", "shelve_instance",
		"shelve_offload_instance", "unshelve_instance", "trigger_crash_dump", "inject_network_info", "quiesce_instance",
		"unquiesce_instance", "get_console_output", "get_vnc_console", "get_spice_console", "get_serial_console", "get_mks_console",
		"get_rdp_console", "validate_console_port", "get_diagnostics", "get_instance_diagnostics", "get_host_uptime",
		"set_host_enabled", "host_power_action", "host_maintenance_mode", "cache_images", "attach_interface", "detach_interface",
		"add_fixed_ip_to_instance", "remove_fixed_ip_from_instance", "external_instance_event", "reserve_block_device_name",
		"attach_volume", "detach_volume", "swap_volume", "remove_volume_connection", "volume_snapshot_create",
		"volume_snapshot_delete", "allow_share", "deny_share", "prep_resize", "resize_instance", "finish_resize", "confirm_resize",
		"revert_resize", "finish_revert_resize", "check_instance_shared_storage", "check_can_live_migrate_destination",
		"check_can_live_migrate_source", "pre_live_migration", "live_migration", "live_migration_force_complete",
		"live_migration_abort", "post_live_migration_at_destination", "rollback_live_migration_at_destination",
		"drop_move_claim_at_destination", "prep_snapshot_based_resize_at_dest", "prep_snapshot_based_resize_at_source",
		"finish_snapshot_based_resize_at_dest", "confirm_snapshot_based_resize_at_source", "revert_snapshot_based_resize_at_dest",
		"finish_revert_snapshot_based_resize_at_source",
	}
	r := newRig(t)
	for _, ep := range r.m.Endpoints() {
		if ep.Namespace != "" {
			continue
		}
		for _, name := range want {
			if ep.Methods[name] == nil {
				t.Errorf("version %s lacks %s", ep.Version, name)
			}
		}
	}
	for _, version := range []string{"6.0", "6.5", "5.13"} {
		to := target()
		to.Version = version
		var up string
		if err := r.api.Call(t.Context(), messaging.AdminContext(), to, "get_host_uptime", nil, &up); err != nil || up == "" {
			t.Errorf("version %s: %v", version, err)
		}
	}
	var pong struct {
		Service string
		Arg     json.RawMessage
	}
	base := messaging.Target{Topic: "compute", Server: host, Namespace: "baseapi", Version: "1.0"}
	err := r.api.Call(t.Context(), messaging.AdminContext(), base, "ping", map[string]any{"arg": "x"}, &pong)
	if err != nil || pong.Service != "compute" || string(pong.Arg) != `"x"` {
		t.Errorf("ping = %+v, %v", pong, err)
	}
}

// Foreign input makes no panic and touches nothing.
func TestMalformedMessages(t *testing.T) {
	r := newRig(t, noWait)
	for _, method := range []string{"stop_instance", "build_and_run_instance", "terminate_instance"} {
		for _, inst := range []any{nil, 7, "x", []any{}, map[string]any{"a": 1}, objects.New("Service"), objects.New("Instance")} {
			if err := r.call(messaging.AdminContext(), method, map[string]any{"instance": inst}, nil); err == nil {
				t.Errorf("%s of %v was accepted", method, inst)
			}
		}
	}
	if calls := r.db.Calls(); len(calls) != 0 {
		t.Errorf("conductor was called: %v", calls)
	}
}
