//go:build linux

package link

import (
	"net/netip"
	"testing"
)

func TestBroadcast(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.0.5/24": "10.1.0.255", "10.1.0.5/30": "10.1.0.7", "10.1.0.5/31": "", "10.1.0.5/32": "",
		"10.1.0.5/8": "10.255.255.255", "fd00::1/64": "",
	} {
		got := ""
		if b, ok := broadcast(netip.MustParsePrefix(in)); ok {
			got = b.String()
		}
		if got != want {
			t.Errorf("broadcast(%s) = %q, want %q", in, got, want)
		}
	}
}
