package network

import (
	"context"
	"net/http"
	"net/netip"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

var addressGroupResource = resource{
	name: "address_group", plural: "address_groups", path: "address-groups", bulk: true,
	missing: func(id string) error {
		return notFound("AddressGroupNotFound", "Address group %s could not be found.", id)
	},
	attrs: standard(
		attr{name: "name", post: true, put: true, def: "", check: text(255), filter: true, sort: true},
		attr{name: "addresses", post: true, unset: true, check: addressList},
		attr{name: "shared"},
	),
}

// addressList accepts networks without duplicates; null is an empty list.
func addressList(v any) (any, error) {
	if v == nil {
		return []any{}, nil
	}
	return prefixList(v)
}

// addressGroup is a list of networks that rules of security groups name.
type addressGroup struct {
	base
	sharing

	Addresses []netip.Prefix
}

// addressGroups is the noun (neutron/db/address_group_db.py).
var addressGroups = noun[*addressGroup]{
	res: &addressGroupResource, table: func(st *state) *table[*addressGroup] { return &st.addressGroups },
	of:   func(a *addressGroup) *base { return &a.base },
	sees: func(c *rest.Caller, a *addressGroup) bool { return c.Owns(a.Project) || a.reaches(c.ProjectID) },
	view: func(_ *rest.Caller, a *addressGroup) map[string]any {
		addresses := make([]string, len(a.Addresses))
		for i, p := range a.Addresses {
			addresses[i] = p.String()
		}
		v := a.standardView(map[string]any{"name": a.Name, "addresses": addresses})
		for _, hidden := range []string{"tags", "created_at", "updated_at", "revision_number"} { // as the real service answers
			delete(v, hidden)
		}
		return v
	},
	make: func(_ *state, _ *rest.Caller, b base, v values) (*addressGroup, error) {
		return &addressGroup{base: b, Addresses: prefixesOf(v.strs("addresses"))}, nil
	},
	change: func(_ *state, _ *rest.Caller, old *addressGroup, _ values) (*addressGroup, error) {
		a := *old
		return &a, nil
	},
	free: func(st *state, a *addressGroup) error {
		if st.rules.has(func(r *rule) bool { return r.RemoteAddresses == a.ID }) {
			return conflict("AddressGroupInUse", "Address group %s is in use on one or more security group rules.", a.ID)
		}
		st.dropPolicies(a.ID)
		return nil
	},
}

func (s *Service) addressGroupRoutes() {
	s.route(&addressGroupResource, addressGroups.verbs(s))
	s.api.Handle("PUT /v2.0/address-groups/{id}/add_addresses", s.changeAddresses("add_addresses",
		func(a *addressGroup, sent []netip.Prefix) error {
			for _, p := range sent {
				if slices.Contains(a.Addresses, p) {
					return fault(http.StatusBadRequest, "AddressesAlreadyExist", "Addresses ['%s'] already exist in the address group %s.", p, a.ID)
				}
			}
			a.Addresses = slices.Concat(a.Addresses, sent)
			return nil
		}))
	s.api.Handle("PUT /v2.0/address-groups/{id}/remove_addresses", s.changeAddresses("remove_addresses",
		func(a *addressGroup, sent []netip.Prefix) error {
			left := slices.Clone(a.Addresses)
			for _, p := range sent {
				i := slices.Index(left, p)
				if i < 0 {
					return notFound("AddressesNotFound", "Addresses ['%s'] not found in the address group %s.", p, a.ID)
				}
				left = slices.Delete(left, i, i+1)
			}
			a.Addresses = left
			return nil
		}))
}

// changeAddresses is a verb on the addresses alone.
func (s *Service) changeAddresses(verb string, change func(a *addressGroup, sent []netip.Prefix) error) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		body, err := bodyOf(r)
		if err != nil {
			return nil, err
		}
		asked, has := body["addresses"]
		if !has || len(body) != 1 {
			return nil, bad("Request body contains invalid data")
		}
		checked, err := addressList(asked)
		if err != nil {
			return nil, bad("Invalid input for addresses. Reason: %s.", err)
		}
		var view map[string]any
		err = s.write(ctx, func(st *state) error {
			old, err := addressGroups.own(st, r, "rule:"+verb)
			if err != nil {
				return err
			}
			a := *old
			if err := change(&a, prefixesOf(values{"addresses": checked}.strs("addresses"))); err != nil {
				return err
			}
			st.bumped(&a.base)
			st.addressGroups.put(&a)
			view = addressGroups.view(r.Caller, &a)
			view["shared"], view["revision_number"] = a.reaches(r.Caller.ProjectID), a.Revision
			view["created_at"], view["updated_at"] = stamp(a.Created), stamp(a.Updated)
			return nil
		})
		if err != nil {
			return nil, err
		}
		return show(r, &addressGroupResource, view)
	}
}
