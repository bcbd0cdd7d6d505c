package compute

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// The endpoints of nova-compute (nova/compute/rpcapi.py). Every minor of a
// major is served, so the highest that is known is announced; a 5.x caller has
// other argument names, which the handlers take as defaults.
const (
	rpcVersion    = "6.99"
	rpcVersionOld = "5.13"
)

// method is one entry of the table.
type method struct {
	name string
	wrap wrap
	run  handler
}

// methods is the table of everything that Nova may call. A method that is not
// done is refused in a way that leaves the instance as it was.
func methods() []method {
	const xr, xef, xf = wrapX | wrapR, wrapX | wrapE | wrapF, wrapX | wrapF
	const xrefm, xefm = wrapXREF | wrapM, xef | wrapM
	return []method{
		// lifecycle
		{"build_and_run_instance", wrapX | wrapAnyHost, (*Manager).buildAndRunInstance},
		{"terminate_instance", wrapXREF, (*Manager).terminateInstance},
		{"stop_instance", wrapXREF | wrapLock, (*Manager).stopInstance},
		{"start_instance", wrapXREF | wrapLock, (*Manager).startInstance},
		{"reboot_instance", wrapXREF | wrapLock, (*Manager).rebootInstance},
		{"pause_instance", wrapXREF | wrapLock, (*Manager).pauseInstance},
		{"unpause_instance", wrapXREF | wrapLock, (*Manager).unpauseInstance},
		{"soft_delete_instance", wrapXREF | wrapLock, (*Manager).softDeleteInstance},
		{"restore_instance", wrapXREF | wrapLock, (*Manager).restoreInstance},
		{"snapshot_instance", wrapXREF, (*Manager).snapshotInstance},
		{"rebuild_instance", wrapXREF | wrapM | wrapAnyHost | wrapLock, (*Manager).rebuildInstance},
		{"suspend_instance", wrapXREF | wrapLock, (*Manager).suspendInstance},
		{"resume_instance", wrapXREF | wrapLock, (*Manager).resumeInstance},
		{"rescue_instance", wrapXREF | wrapLock, (*Manager).rescueInstance},
		{"unrescue_instance", wrapXREF | wrapLock, (*Manager).unrescueInstance},
		{"set_admin_password", wrapXREF, (*Manager).setAdminPassword},
		{"backup_instance", wrapXREF, (*Manager).backupInstance},
		{"shelve_instance", wrapXREF | wrapLock, (*Manager).shelveInstance},
		{"shelve_offload_instance", wrapXREF | wrapLock, (*Manager).offloadInstance},
		{"unshelve_instance", wrapXREF | wrapAnyHost | wrapLock, (*Manager).unshelveInstance},
		{"trigger_crash_dump", xef | wrapLock, (*Manager).triggerCrashDump},
		{"quiesce_instance", wrapX, (*Manager).quiesceInstance},
		{"unquiesce_instance", wrapX, (*Manager).unquiesceInstance},

		// network
		{"inject_network_info", wrapF | wrapLock, (*Manager).injectNetworkInfo},
		{"external_instance_event", wrapX | wrapHost, (*Manager).externalInstanceEvent},
		{"attach_interface", xef | wrapLock, (*Manager).attachInterface},
		{"detach_interface", xef | wrapLock, (*Manager).detachInterface},
		{"add_fixed_ip_to_instance", xf | wrapLock, (*Manager).addFixedIP},
		{"remove_fixed_ip_from_instance", xf | wrapLock, (*Manager).removeFixedIP},

		// console, diagnostics, host
		{"get_console_output", 0, (*Manager).getConsoleOutput},
		{"get_vnc_console", 0, getConsole(ConsoleVNC, "novnc")},
		{"get_spice_console", 0, refuseConsole("spice-html5")},
		{"get_serial_console", 0, getConsole(ConsoleSerial, "serial")},
		{"get_mks_console", 0, refuseConsole("webmks")},
		{"get_rdp_console", 0, refuseConsole("rdp-html5")},
		{"validate_console_port", 0, (*Manager).validateConsolePort},
		{"get_diagnostics", 0, (*Manager).getDiagnostics},
		{"get_instance_diagnostics", 0, (*Manager).getInstanceDiagnostics},
		{"get_host_uptime", wrapHost, (*Manager).getHostUptime},
		{"set_host_enabled", wrapHost, (*Manager).setHostEnabled},
		{"host_power_action", wrapHost, refuse("Power actions on the host")},
		{"host_maintenance_mode", wrapHost, refuse("The maintenance mode of the host")},
		{"cache_images", wrapHost, (*Manager).cacheImages},

		// volumes and shares
		{"reserve_block_device_name", xr | wrapF, refuseVolume()},
		{"attach_volume", xef, refuseVolume()},
		{"detach_volume", xef, refuseVolume()},
		{"swap_volume", xef, refuseVolume()},
		{"extend_volume", xef, refuseVolume()},
		{"remove_volume_connection", wrapX | wrapAnyHost, (*Manager).nothing},
		{"volume_snapshot_create", wrapX, refuse("Snapshots of volumes")},
		{"volume_snapshot_delete", wrapX, refuse("Snapshots of volumes")},
		{"allow_share", xef, refuse("Attaching shares")},
		{"deny_share", xef, refuse("Attaching shares")},

		// migration family
		{"prep_resize", xrefm | wrapAnyHost | wrapLock, (*Manager).prepResize},
		{"resize_instance", xrefm | wrapLock, (*Manager).resizeInstance},
		{"finish_resize", xrefm | wrapLock, (*Manager).finishResize},
		{"confirm_resize", xef | wrapAnyHost | wrapLock, (*Manager).confirmResize},
		{"revert_resize", wrapXREF | wrapLock, (*Manager).revertResize},
		{"finish_revert_resize", xrefm | wrapAnyHost | wrapLock, (*Manager).finishRevertResize},
		{"check_instance_shared_storage", wrapX | wrapHost, (*Manager).checkSharedStorage},
		{"check_can_live_migrate_destination", xef | wrapAnyHost, refuseLive()},
		{"check_can_live_migrate_source", xef, refuseLive()},
		{"pre_live_migration", xef | wrapAnyHost, refuseLive()},
		{"live_migration", xefm, refuseLive()},
		{"live_migration_force_complete", xef, refuseLive()},
		{"live_migration_abort", xef, refuseLive()},
		{"post_live_migration_at_destination", xef | wrapAnyHost, refuseLive()},
		{"rollback_live_migration_at_destination", xef | wrapAnyHost, (*Manager).nothing},
		{"drop_move_claim_at_destination", xf | wrapAnyHost, (*Manager).nothing},
		{"prep_snapshot_based_resize_at_dest", xefm | wrapAnyHost, refuseLive()},
		{"prep_snapshot_based_resize_at_source", xrefm, refuseLive()},
		{"finish_snapshot_based_resize_at_dest", xrefm | wrapAnyHost, refuseLive()},
		{"confirm_snapshot_based_resize_at_source", xefm | wrapAnyHost, refuseLive()},
		{"revert_snapshot_based_resize_at_dest", xefm | wrapAnyHost, refuseLive()},
		{"finish_revert_snapshot_based_resize_at_source", xefm | wrapAnyHost, refuseLive()},
	}
}

// Endpoints are what the RPC server of a compute host serves, on the topics
// compute and compute-alt.
func (m *Manager) Endpoints() []messaging.Endpoint {
	table := map[string]messaging.Handler{}
	for _, x := range methods() {
		table[x.name] = m.serve(x)
	}
	return []messaging.Endpoint{
		{Version: rpcVersion, Methods: table},
		{Version: rpcVersionOld, Methods: table},
		messaging.BaseEndpoint("compute"),
	}
}

// serve makes the RPC handler of a method: decode the instance, keep off those
// of other hosts, perform, name the error in Nova's words.
func (m *Manager) serve(x method) messaging.Handler {
	return func(ctx context.Context, req *messaging.Request) (any, error) {
		o := &op{name: x.name, rc: req.Context, req: req}
		if x.wrap&wrapHost != 0 {
			o.log = m.log.With().Str(logging.Method, x.name).Str(logging.Request, req.Context.RequestID()).Logger()
		} else if err := m.admit(x, o); err != nil {
			return nil, translate(err)
		}
		res, err := m.perform(ctx, x.wrap, o, x.run)
		if err != nil {
			return nil, translate(err)
		}
		return res, nil
	}
}

// admit decodes the instance and refuses one that belongs to another host: the
// bus is shared, and a stale message must touch nothing here.
func (m *Manager) admit(x method, o *op) error {
	if err := o.arg("instance", &o.inst); err != nil {
		return err
	}
	if o.inst == nil || o.inst.Name != "Instance" || o.uuid() == "" {
		return fmt.Errorf("%s: no instance: %w", x.name, errdefs.ErrInvalid)
	}
	adopt(o.inst)
	o.log = m.instanceLog(o.rc, o.inst).With().Str(logging.Method, x.name).Logger()
	if host := o.inst.String("host"); x.wrap&wrapAnyHost == 0 && host != m.opt.Host {
		o.log.Warn().Str("other", host).Msg("message for an instance of another host")
		return messaging.NovaError("InstanceNotFound", 404, "Instance %s could not be found.", o.uuid())
	}
	return nil
}
