// Package periodic runs the work that a compute host does by itself: telling
// the control plane of its resources, bringing power states into agreement,
// removing what deleted instances left.
//
// Scheduler runs named tasks at their intervals; Tasks makes the list of them
// from what the service has at hand. Nothing here acts on an answer that did
// not come: a task that cannot read the control plane fails and tries again at
// its next time.
//
// Source: nova/compute/manager.py (the methods marked periodic_task) and
// oslo_service/periodic_task.py for what an interval means. Only
// internal/daemon imports this package.
package periodic
