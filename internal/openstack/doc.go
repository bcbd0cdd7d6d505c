// Package openstack is the way to the REST services of an OpenStack: sessions
// that hold a Keystone token, endpoints from its catalog, requests with the
// right tokens, bounded retries, and errors in the classes of errdefs.
//
// A Session is one set of credentials (one section of nova.conf). A Client is
// one service reached with it. Nothing talks to the network before the first
// request. It is built on gophercloud's ProviderClient; packages that prefer
// gophercloud's typed calls get a ServiceClient from Client.Gophercloud.
//
// It knows nothing of what the services do: that is in driver/neutron,
// driver/placement and glance, which alone may import it besides
// internal/daemon.
package openstack
