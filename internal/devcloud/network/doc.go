// Package network is the embedded cloud's network service: the Networking API
// v2.0 as Neutron with ML2, the linuxbridge mechanism and the router plugin
// speaks it, the addresses of all subnets, and the plans of what the host must
// do for them.
//
// The state of a cloud of one host is small. All of it is in memory as records
// that never change once they are published; a request that writes works on an
// overlay (state.go), which is stored in one SQLite transaction and then
// published, so what was answered outlives the process and a refused request
// has changed nothing. Reads never wait for the disk.
//
// Each resource is one file in the same order: attributes, routes, record, view,
// verbs. What may be sent, by whom, and how wrong input is refused is in the
// attribute tables (attrs.go), as in neutron_lib/api/definitions.
//
// What the host must do is behind Fabric: planner.go derives plans from the
// state (pure), realise.go sends those that changed, and all of them at the
// start. The package imports nothing that touches a host.
package network
