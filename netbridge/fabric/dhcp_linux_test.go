package fabric_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/netbridge/dhcp"
	"github.com/gantry-project/gantry/netbridge/fabric"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// leasing is a cloud's fabric that has a lease for each guest: 10.0.0.5, and the
// interface it asked on for its host name.
func (h *host) leasing(name string, macs ...string) *fabric.Fabric {
	f := fabric.New(fabric.Options{
		Cloud: name, Dir: filepath.Join(h.dir, name), HostNetNS: fdPath(h.ns),
		Lease: func(port, asking string) (dhcp.Lease, bool) {
			return dhcp.Lease{
				Server: netip.MustParseAddr("10.0.0.1"), Address: netip.MustParsePrefix("10.0.0.5/24"), Router: netip.MustParseAddr("10.0.0.1"),
				DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, MTU: 1450, HostName: fmt.Sprintf("at-%.8s", port),
				Routes: []dhcp.Route{{To: netip.MustParsePrefix("192.0.2.0/24"), Via: netip.MustParseAddr("10.0.0.9")}},
			}, slices.Contains(macs, asking)
		},
	})
	h.t.Cleanup(func() {
		if err := f.Close(context.WithoutCancel(h.t.Context())); err != nil {
			h.t.Error(err)
		}
	})
	return f
}

// leased is what the client of a guest tells its script, or its error.
func (h *host) leased(guest *os.File) (string, error) {
	h.t.Helper()
	script := filepath.Join(h.t.TempDir(), "script")
	h.ok(os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] && echo \"bound $ip/$mask $router $dns $mtu $hostname $staticroutes $lease $serverid\"\nexit 0\n"), 0o700)) //nolint:gosec // is run
	var out []byte
	err := netns.Do(guest, func() (err error) {
		out, err = exec.CommandContext(h.t.Context(), "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "4", "-T", "1", "-s", script,
			"-O", "mtu", "-O", "staticroutes", "-O", "hostname").CombinedOutput()
		return err
	})
	for line := range strings.Lines(string(out)) {
		if told, ok := strings.CutPrefix(line, "bound "); ok {
			return strings.TrimSpace(told), err
		}
	}
	return "", fmt.Errorf("%w: %s", err, out)
}

func TestGuestsAreToldTheirAddresses(t *testing.T) {
	h := newHost(t)
	h.fabric = h.leasing("one", "fa:16:3e:00:00:0b", "fa:16:3e:00:00:0c")
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	one, two, unknown := h.tenant(11), h.tenant(12), h.tenant(13)
	want := "10.0.0.5/24 10.0.0.1 192.0.2.53 1450 at-%s 192.0.2.0/24 10.0.0.9 0.0.0.0/0 10.0.0.1 86400 10.0.0.1"
	for _, again := range []bool{false, true} {
		if again {
			h.ok(h.fabric.Close(t.Context()))
			if told, err := h.leased(one.guest); err == nil {
				t.Errorf("while no process runs: %s", told)
			}
			h.fabric = h.leasing("one", "fa:16:3e:00:00:0b", "fa:16:3e:00:00:0c")
			h.ok(h.fabric.Sync(t.Context(), fabric.World{
				Networks: []fabric.Network{public(), one.network, two.network, unknown.network}, Routers: []fabric.Router{one.router, two.router, unknown.router},
			}))
		}
		for id, guest := range map[string]tenant{"00000011": one, "00000012": two} {
			if told, err := h.leased(guest.guest); err != nil || told != fmt.Sprintf(want, id) {
				t.Errorf("%s (again: %v) is told %q, %v", id, again, told, err)
			}
		}
	}
	if told, err := h.leased(unknown.guest); err == nil {
		t.Errorf("who is not known is told %q", told)
	}
	// An interface that is taken away answers no more.
	two.router.Interfaces = nil
	h.ok(h.fabric.SetRouter(t.Context(), two.router))
	if told, err := h.leased(two.guest); err == nil {
		t.Errorf("without a router: %q", told)
	}
}
