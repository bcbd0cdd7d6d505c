package network

import (
	"context"
	"math"
	"math/big"
	"strconv"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

var availabilityResource = resource{
	name: "network_ip_availability", plural: "network_ip_availabilities", path: "network-ip-availabilities",
	missing: networkResource.missing,
	attrs: []attr{
		{name: "network_id", filter: true},
		{name: "network_name", filter: true},
		{name: "tenant_id", filter: true},
		{name: "project_id", filter: true},
		{name: "ip_version", filter: true},
		{name: "subnet_ip_availability"},
		{name: "used_ips"},
		{name: "total_ips"},
	},
}

func (s *Service) availabilityRoutes() {
	s.route(&availabilityResource, verbs{list: s.listAvailability, show: s.showAvailability})
	// Clients list these to resolve names. There are none.
	s.api.Handle("GET /v2.0/flavors", func(context.Context, *rest.Request) (*rest.Response, error) {
		return rest.OK(map[string]any{"flavors": []any{}})
	})
}

// size is how many addresses the pools have, as a number of JSON.
func (r ipRange) size() *big.Int {
	first, last := new(big.Int).SetBytes(r.First.AsSlice()), new(big.Int).SetBytes(r.Last.AsSlice())
	return last.Sub(last, first).Add(last, big.NewInt(1))
}

// availability counts the addresses of a network; version "4" or "6" leaves the
// other one out.
func (st *state) availability(n *network, version string) map[string]any {
	total, used := new(big.Int), 0
	subnets := []map[string]any{}
	for _, sub := range st.subnetsOf(n.ID) {
		if version != "" && version != strconv.Itoa(sub.version()) {
			continue
		}
		own := new(big.Int)
		for _, r := range sub.Pools {
			own.Add(own, r.size())
		}
		inUse := len(st.taken(sub.ID))
		total.Add(total, own)
		used += inUse
		subnets = append(subnets, map[string]any{
			"subnet_id": sub.ID, "subnet_name": sub.Name, "ip_version": sub.version(), "cidr": sub.CIDR.String(),
			"used_ips": inUse, "total_ips": number(own),
		})
	}
	return map[string]any{
		"network_id": n.ID, "network_name": n.Name, "tenant_id": n.Project, "project_id": n.Project,
		"subnet_ip_availability": subnets, "used_ips": used, "total_ips": number(total),
	}
}

// number is an integer as JSON writes it.
func number(n *big.Int) any {
	if n.IsInt64() && n.Int64() <= math.MaxInt {
		return n.Int64()
	}
	return n
}

func (s *Service) listAvailability(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		all := st.networks.where(func(*network) bool { return r.Caller.Admin() })
		res, err = list(r, &availabilityResource, all, func(n *network) map[string]any {
			return st.availability(n, r.Params().Get("ip_version"))
		})
		return err
	})
	return res, err
}

func (s *Service) showAvailability(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		n, err := st.network(r.Caller, r.PathValue("id"))
		if err != nil || !r.Caller.Admin() {
			return networkResource.missing(r.PathValue("id"))
		}
		res, err = show(r, &availabilityResource, st.availability(n, ""))
		return err
	})
	return res, err
}
