package network

import (
	"net/netip"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// How subnets get their prefix (neutron/ipam/subnet_alloc.py).

// badSubnets is BadRequest of a subnet.
func badSubnets(text string) error {
	return fault(400, "BadRequest", "Bad subnets request: %s.", text)
}

// prefixFor finds the prefix of a new subnet, and the pool that it comes from;
// "" for one without.
func (st *state) prefixFor(c *rest.Caller, n *network, project string, v values) (netip.Prefix, string, error) {
	none := netip.Prefix{}
	if v.str("cidr") != "" && v["prefixlen"] != nil {
		return none, "", badSubnets("cidr and prefixlen must not be supplied together")
	}
	pool, err := st.poolFor(c, v)
	if err != nil {
		return none, "", err
	}
	var cidr netip.Prefix
	switch {
	case v.str("cidr") != "":
		cidr = netip.MustParsePrefix(v.str("cidr"))
	case pool == nil:
		return none, "", badSubnets("a subnetpool must be specified in the absence of a cidr")
	case v["allocation_pools"] != nil:
		return none, "", badSubnets("allocation_pools allowed only for specific subnet requests.")
	}
	if pool == nil {
		return cidr, "", st.affinity(n, nil, cidr.Addr().Is4())
	}
	if pool.version() != v.num("ip_version") {
		return none, "", badSubnets("Cannot allocate " + family(v.num("ip_version")) + " subnet from " + family(pool.version()) + " subnet pool")
	}
	if err := st.affinity(n, pool, pool.version() == 4); err != nil {
		return none, "", err
	}
	length := pool.Default
	if cidr.IsValid() {
		length = cidr.Bits()
	} else if v["prefixlen"] != nil {
		length = v.num("prefixlen")
	}
	cidr, err = st.allocate(pool, project, cidr, length)
	return cidr, pool.ID, err
}

func family(version int) string {
	if version == 6 {
		return ipv6
	}
	return ipv4
}

// poolFor is the pool that was asked for, nil if none was.
func (st *state) poolFor(c *rest.Caller, v values) (*subnetPool, error) {
	id := v.str("subnetpool_id")
	switch {
	case id != "" && v.flag("use_default_subnetpool"):
		return nil, badSubnets("subnetpool_id and use_default_subnetpool cannot both be specified")
	case id != "":
		return subnetPools.find(st, c, id)
	case v.flag("use_default_subnetpool"):
		if p := st.defaultPool(v.num("ip_version")); p != nil {
			return p, nil
		}
		return nil, badSubnets("No default subnetpool found for IPv" + py(v.num("ip_version")))
	}
	return nil, nil //nolint:nilnil // none was asked for
}

// affinity refuses subnets of different pools, or of a pool and of none, in one
// network.
func (st *state) affinity(n *network, pool *subnetPool, is4 bool) error {
	for _, s := range st.subnetsOf(n.ID) {
		if s.CIDR.Addr().Is4() != is4 {
			continue
		}
		if pool == nil && s.Pool == "" || pool != nil && s.Pool == pool.ID {
			continue
		}
		if other, ok := st.pools.get(s.Pool); ok && pool != nil && pool.Scope != "" && other.Scope == pool.Scope {
			continue
		}
		return fault(400, "NetworkSubnetPoolAffinityError", "Subnets hosted on the same network must be allocated from the same subnet pool.")
	}
	return nil
}

// allocate takes a prefix of a pool: this one, or any of that length.
func (st *state) allocate(pool *subnetPool, project string, this netip.Prefix, length int) (netip.Prefix, error) {
	none := netip.Prefix{}
	switch {
	case length > pool.Max:
		return none, fault(400, "MaxPrefixSubnetAllocationError",
			"Unable to allocate subnet with prefix length %d, maximum allowed prefix is %d.", length, pool.Max)
	case length < pool.Min:
		return none, fault(400, "MinPrefixSubnetAllocationError",
			"Unable to allocate subnet with prefix length %d, minimum allowed prefix is %d.", length, pool.Min)
	}
	var used []netip.Prefix
	unit := 32
	if pool.version() == 6 {
		unit = 64
	}
	units := func(bits int) float64 { return float64(uint64(1) << max(0, min(63, unit-bits))) }
	spent := units(length)
	for _, s := range st.subnets.where(func(s *subnet) bool { return s.Pool == pool.ID }) {
		used = append(used, s.CIDR)
		if s.Project == project {
			spent += units(s.CIDR.Bits())
		}
	}
	if pool.Quota > 0 && spent > float64(pool.Quota) {
		return none, conflict("SubnetPoolQuotaExceeded", "Per-tenant subnet pool prefix quota exceeded.")
	}
	free := without(pool.Prefixes, used)
	if this.IsValid() {
		if !covered(free, this) {
			return none, unallocated("Cannot allocate requested subnet from the available set of prefixes")
		}
		return this, nil
	}
	slices.SortStableFunc(free, func(a, b netip.Prefix) int { return b.Bits() - a.Bits() }) // the smallest that fits
	for _, p := range free {
		if p.Bits() <= length {
			return netip.PrefixFrom(p.Addr(), length), nil
		}
	}
	return none, unallocated("Insufficient prefix space to allocate subnet size /" + py(length))
}

// unallocated is what Neutron answers as a fault of its own, with 500.
func unallocated(why string) error {
	return conflict("SubnetAllocationError", "Failed to allocate subnet: %s.", why)
}
