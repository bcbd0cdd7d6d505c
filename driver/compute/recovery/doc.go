// Package recovery brings the instances of this host into a state that the
// control plane can go on from, once, when the service starts and before it
// takes messages: operations that the end of the earlier process cut short are
// finished, repeated or given up.
//
// Decide is the whole judgement, a pure function of what was found for one
// instance; Recovery (run.go) finds it and acts. Guests outlive the service, so
// nothing is started or made again here: Recover of the driver has adopted what
// runs.
//
// Two rules stand above the table. An instance of another host is not touched,
// whatever lies here. And nothing is done on the strength of an answer that did
// not come: when the control plane cannot be read, Run fails and may be called
// again.
//
// Source: nova/compute/manager.py (init_host, _init_instance, _retry_reboot,
// _error_out_instances_whose_build_was_interrupted) and
// nova/compute/utils.py (get_reboot_type).
package recovery
