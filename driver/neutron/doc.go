// Package neutron gives instances their ports: it creates or adopts them,
// binds them to this host, describes them as Nova's network_info, and takes
// them away again.
//
// A boot costs what Neutron costs, so the calls are few and run beside one
// another: one look at the requested network with the user's token (may the
// user see it?), then the port in one POST, bound at once, while the facts for
// network_info are read. Stock Nova makes a POST with the user's token and
// then a PUT with its own.
//
// The one POST is made with the service's credentials, since only an
// administrator may bind. What that would let pass is checked before: the
// network must be visible to the user, security groups resolve among those of
// the project, and external networks need the right. Neutron counts the port
// against the quota of tenant_id, whoever creates it. A request for a fixed
// address has a policy of its own in Neutron (create_port:fixed_ips), so such a
// port is created with the user's token and bound in a second call; so is every
// port when Options.UserCreatesPorts is set, for clouds with policies of their
// own for create_port.
//
// The package does not write Nova's rows (VirtualInterface,
// InstanceInfoCache); internal/daemon joins it with the conductor for that. It
// may be imported by internal/daemon and driver/compute.
//
// Source: nova/network/neutron.py (API.allocate_for_instance,
// deallocate_for_instance, _build_vif_model) and nova/network/model.py.
package neutron
