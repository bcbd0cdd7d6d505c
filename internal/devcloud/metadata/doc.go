// Package metadata is the embedded cloud's metadata service, what instances
// find at 169.254.169.254: Nova's metadata API in its OpenStack and its EC2
// form, and the proxy in front of it, which is Neutron's metadata agent.
//
// The proxy (Proxy) finds out which instance asks, by where it asked and from
// which address, and signs that; the service (Service) believes nobody without
// the signature. Neither listens: who makes the networks does, and passes
// requests on. Nothing is kept between requests.
//
// Formats follow nova/api/metadata/{handler,base,password}.py,
// nova/virt/netutils.py and nova/block_device.py of Zed. Left out, as in a Zed
// that is not configured for it: dynamic vendor data (vendor_data.json is empty),
// injected network templates and files, a DHCP domain.
package metadata
