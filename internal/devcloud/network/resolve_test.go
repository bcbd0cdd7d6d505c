package network

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestInstanceBehind(t *testing.T) {
	c := newCloud(t, nil)
	net, _, _, router := c.routed()
	port := c.must("admin", "POST", "/v2.0/ports", instance(net, nobody))
	address := netip.MustParseAddr(fmt.Sprint(ips(port)[0]))
	device, project, err := c.s.InstanceBehind(t.Context(), router, address)
	if err != nil || device != port["device_id"] || project != port["project_id"] || device == "" {
		t.Errorf("found %s of %s, %v; want %v", device, project, err, port)
	}
	for what, ask := range map[string]struct {
		router  string
		address netip.Addr
	}{
		"another router":       {nobody, address},
		"no router":            {"", address},
		"nobody's address":     {router, netip.MustParseAddr("10.0.0.250")},
		"the router's address": {router, netip.MustParseAddr("10.0.0.1")},
	} {
		if _, _, err := c.s.InstanceBehind(t.Context(), ask.router, ask.address); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if a := c.ask("admin", "DELETE", "/v2.0/ports/"+fmt.Sprint(port["id"]), ""); a.status != 204 {
		t.Fatalf("delete port: %v", a)
	}
	if _, _, err := c.s.InstanceBehind(t.Context(), router, address); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("after the port is gone: %v", err)
	}
}
