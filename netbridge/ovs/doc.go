// Package ovs makes interfaces of instances ports of Open vSwitch: a
// netbridge.Plugger around another one, and a small client of the switch's
// database.
//
// What is written there, and what devices are called, is what os-vif writes
// (vif_plug_ovs/ovs.py, ovsdb/ovsdb_lib.py): Neutron's agent, or OVN's
// controller, finds the port by external_ids:iface-id and does the rest. A
// hybrid port has a Linux bridge of its own (qbr…) with the host end in it, and
// a pair of devices (qvb…, qvo…) from there into the switch.
//
// The database is asked on its socket in its own protocol (RFC 7047). Each
// question has a connection of its own: nothing has to be kept alive, a
// restarted database is simply asked again, and one that does not answer holds
// nobody up but who asks.
//
// What is ours: ports that a record below Options.Dir names, which is written
// before they are and survives a reboot of the host as the database does; links
// with the alias "gantry-ovs:<owner>:<id>". Bridges of the switch are made when
// they are missing and never removed, but those of a trunk ("tbr-…") with their
// last port. Hosts without such ports never ask for a database.
package ovs
