package network

import (
	"slices"
	"strings"
)

// dhcpOption is one that the owner of a port wants told to its guest.
type dhcpOption struct {
	Name, Value string
	Version     int
}

// blankOptions are the names that may be without a value.
var blankOptions = []string{"router", "classless-static-route"}

// dhcpOptions checks the form of extra_dhcp_opts
// (neutron_lib/api/definitions/extra_dhcp_opt.py).
func dhcpOptions(v any) (any, error) {
	if v == nil {
		return []any{}, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, because("'%s' is not a list", py(v))
	}
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			return nil, because("'%s' is not a dictionary", py(e))
		}
		name, _ := m["opt_name"].(string)
		value, isText := m["opt_value"].(string)
		_, has := m["opt_value"]
		switch {
		case !has || m["opt_name"] == nil:
			return nil, because("No valid key specs matched for: %s", repr(m))
		case strings.TrimSpace(name) == "" || len(name) > 64 || strings.Contains(name, "\n"):
			return nil, because("'%s' is not a valid name of an option", py(m["opt_name"]))
		case m["opt_value"] == nil:
		case !isText || len(value) > 255 || strings.Contains(value, "\n"),
			strings.TrimSpace(value) == "" && !slices.Contains(blankOptions, name):
			return nil, because("'%s' is not a valid value of an option", py(m["opt_value"]))
		}
		for k := range m {
			if k != "opt_name" && k != "opt_value" && k != "ip_version" {
				return nil, because("No valid key specs matched for: %s", repr(m))
			}
		}
		if version, sent := m["ip_version"]; sent {
			checked, err := ipVersion(version)
			if err != nil {
				return nil, err
			}
			m["ip_version"] = checked
		}
	}
	return list, nil
}

// setOptions takes over what was sent: an option without a value goes, others
// replace those of their name and version.
func (p *port) setOptions(v values) {
	for _, m := range v.maps("extra_dhcp_opts") {
		o := dhcpOption{Name: m.str("opt_name"), Value: m.str("opt_value"), Version: m.num("ip_version")}
		if o.Version == 0 {
			o.Version = 4
		}
		left := slices.DeleteFunc(slices.Clone(p.Options), func(have dhcpOption) bool { return have.Name == o.Name && have.Version == o.Version })
		if m["opt_value"] != nil && (o.Value != "" || slices.Contains(blankOptions, o.Name)) {
			left = append(left, o)
		}
		p.Options = left
	}
}

func optionsView(all []dhcpOption) []map[string]any {
	out := make([]map[string]any, len(all))
	for i, o := range all {
		out[i] = map[string]any{"opt_name": o.Name, "opt_value": o.Value, "ip_version": o.Version}
	}
	return out
}
