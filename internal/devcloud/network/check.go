package network

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// The checks of attributes, in the words of neutron_lib/api/validators and
// converters.

// py writes a value of JSON as Python does in '%s'.
func py(v any) string {
	switch x := v.(type) {
	case nil:
		return "None"
	case bool:
		if x {
			return "True"
		}
		return "False"
	case string:
		return x
	case json.Number:
		return x.String()
	case int:
		return strconv.Itoa(x)
	}
	return repr(v)
}

// repr writes a value of JSON as Python shows it inside of others.
func repr(v any) string {
	switch x := v.(type) {
	case string:
		return "'" + x + "'"
	case []any:
		parts := make([]string, len(x))
		for i, e := range x {
			parts[i] = repr(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(x)) {
			parts = append(parts, repr(k)+": "+repr(x[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case nil, bool, json.Number, int:
		return py(v)
	}
	return fmt.Sprint(v)
}

func text(most int) func(any) (any, error) {
	return func(v any) (any, error) {
		s, ok := v.(string)
		if !ok {
			return nil, because("'%s' is not a valid string", py(v))
		}
		if len([]rune(s)) > most {
			return nil, because("'%s' exceeds maximum length of %d", s, most)
		}
		return s, nil
	}
}

// orNull lets null pass.
func orNull(check func(any) (any, error)) func(any) (any, error) {
	return func(v any) (any, error) {
		if v == nil {
			return nil, nil //nolint:nilnil // null is a value of JSON
		}
		return check(v)
	}
}

func boolean(v any) (any, error) {
	switch x := v.(type) {
	case bool:
		return x, nil
	case string:
		switch strings.ToLower(x) {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
	case json.Number:
		switch x.String() {
		case "0":
			return false, nil
		case "1":
			return true, nil
		}
	}
	return nil, invalid("'%s' cannot be converted to boolean", py(v))
}

func integer(v any) (any, error) {
	switch x := v.(type) {
	case int: // a default
		return x, nil
	case json.Number:
		if n, err := strconv.Atoi(x.String()); err == nil {
			return n, nil
		}
		if f, err := x.Float64(); err == nil && f > -1e9 && f < 1e9 {
			return int(f), nil
		}
	case string:
		if n, err := strconv.Atoi(x); err == nil {
			return n, nil
		}
	case bool:
		if x {
			return 1, nil
		}
		return 0, nil
	}
	return nil, invalid("'%s' is not an integer", py(v))
}

// oneOf accepts the listed values.
func oneOf(all ...string) func(any) (any, error) {
	return func(v any) (any, error) {
		if s, ok := v.(string); ok && slices.Contains(all, s) {
			return s, nil
		}
		return nil, because("%s is not in valid_values", py(v))
	}
}

func isUUID(s string) bool {
	_, err := uuid.Parse(s)
	return err == nil && len(s) <= 36
}

func uuidOf(v any) (any, error) {
	s, ok := v.(string)
	if !ok || !isUUID(s) {
		return nil, because("'%s' is not a valid UUID", py(v))
	}
	return s, nil
}

// uuids accepts a list without duplicates; null is an empty one.
func uuids(v any) (any, error) {
	if v == nil {
		return []any{}, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, because("'%s' is not a list", py(v))
	}
	seen := map[string]bool{}
	for _, e := range list {
		if _, err := uuidOf(e); err != nil {
			return nil, err
		}
		s := py(e)
		if seen[s] {
			return nil, because("Duplicate items in the list: '%s'", s)
		}
		seen[s] = true
	}
	return list, nil
}

// parseIP reads an address without a zone.
func parseIP(v any) (netip.Addr, bool) {
	s, ok := v.(string)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

func ipOf(v any) (any, error) {
	a, ok := parseIP(v)
	if !ok {
		return nil, because("'%s' is not a valid IP address", py(v))
	}
	return a.String(), nil
}

// macOf accepts the forms of netaddr that have six bytes, and makes them
// lower case with colons.
func macOf(v any) (any, error) {
	s, ok := v.(string)
	if ok {
		if m, err := net.ParseMAC(s); err == nil && len(m) == 6 && m.String() != "00:00:00:00:00:00" {
			return m.String(), nil
		}
	}
	return nil, because("'%s' is not a valid MAC address", py(v))
}

// cidrOf accepts a network in any form and clears its host bits.
func cidrOf(v any) (any, error) {
	s, ok := v.(string)
	if ok {
		if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() {
			return p.Masked().String(), nil
		}
	}
	return nil, invalid("%s is not in a CIDR format", py(v))
}

// object accepts a JSON object.
func object(v any) (any, error) {
	if m, ok := v.(map[string]any); ok {
		return m, nil
	}
	return nil, because("'%s' is not a dictionary", py(v))
}

// zoneHints accepts the one availability zone there is.
func zoneHints(v any) (any, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, because("'%s' is not a list", py(v))
	}
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, because("'%s' is not a valid string", py(e))
		}
		if s != zone {
			return nil, notFound("AvailabilityZoneNotFound", "AvailabilityZone %s could not be found.", s)
		}
	}
	return list, nil
}

// pools accepts a list of allocation pools, as far as their form goes.
func pools(v any) (any, error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		return nil, because("Invalid data format for IP pool: '%s'", py(v))
	}
	for _, e := range list {
		m, err := exactly(e, "start", "end")
		if err != nil {
			return nil, err
		}
		for _, k := range []string{"start", "end"} {
			if m[k], err = ipOf(m[k]); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// exactly accepts an object with these keys and no others.
func exactly(v any, keys ...string) (map[string]any, error) {
	m, ok := v.(map[string]any)
	expected := "'" + strings.Join(keys, "', '") + "'"
	if !ok {
		return nil, because("Invalid input. '%s' must be a dictionary with keys: [%s]", py(v), expected)
	}
	have := slices.Sorted(maps.Keys(m))
	if want := slices.Sorted(slices.Values(keys)); !slices.Equal(have, want) {
		provided := "'" + strings.Join(have, "', '") + "'"
		if len(have) == 0 {
			provided = ""
		}
		return nil, because("Validation of dictionary's keys failed. Expected keys: {%s} Provided keys: {%s}", expected, provided)
	}
	return m, nil
}

func nameservers(v any) (any, error) {
	list, ok := v.([]any)
	if v == nil {
		return []any{}, nil
	}
	if !ok {
		return nil, because("Invalid data format for nameserver: '%s'", py(v))
	}
	seen := map[string]bool{}
	for i, e := range list {
		ip, err := ipOf(e)
		if err != nil {
			return nil, because("'%s' is not a valid nameserver. %s", py(e), err)
		}
		list[i] = ip
		if seen[py(ip)] {
			return nil, because("Duplicate nameserver '%s'", py(ip))
		}
		seen[py(ip)] = true
	}
	return list, nil
}

func hostRoutes(v any) (any, error) {
	list, ok := v.([]any)
	if v == nil {
		return []any{}, nil
	}
	if !ok {
		return nil, because("Invalid data format for hostroute: '%s'", py(v))
	}
	seen := map[string]bool{}
	for _, e := range list {
		m, err := exactly(e, "nexthop", "destination")
		if err != nil {
			return nil, err
		}
		p, err := netip.ParsePrefix(py(m["destination"]))
		if err != nil {
			return nil, because("'%s' is not a valid CIDR", py(m["destination"]))
		}
		if p != p.Masked() {
			return nil, because("'%s' is not a recognized CIDR, '%s' is recommended", p, p.Masked())
		}
		if m["nexthop"], err = ipOf(m["nexthop"]); err != nil {
			return nil, err
		}
		if key := repr(m); seen[key] {
			return nil, because("Duplicate hostroute '%s'", key)
		} else {
			seen[key] = true
		}
	}
	return list, nil
}

// fixedIPs accepts the wish for addresses, as far as its form goes.
func fixedIPs(v any) (any, error) {
	list, ok := v.([]any)
	if v == nil {
		return []any{}, nil
	}
	if !ok {
		return nil, because("Invalid data format for fixed IP: '%s'", py(v))
	}
	seen := map[string]bool{}
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			return nil, because("Invalid data format for fixed IP: '%s'", py(e))
		}
		if ip, has := m["ip_address"]; has && ip != nil {
			a, err := ipOf(ip)
			if err != nil {
				return nil, err
			}
			if seen[py(a)] {
				return nil, because("Duplicate IP address '%s'", py(a))
			}
			seen[py(a)] = true
			m["ip_address"] = a
		}
		if id, has := m["subnet_id"]; has {
			if _, err := uuidOf(id); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}
