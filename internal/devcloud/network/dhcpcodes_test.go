package network

import (
	"bytes"
	"testing"
)

func TestOptionsAsTheyAreTold(t *testing.T) {
	for _, c := range []struct {
		name, value string
		version     int
		code        byte
		told        []byte
		ok          bool
	}{
		{"mtu", "1400", 4, 26, []byte{5, 120}, true},
		{"26", "1400", 4, 26, []byte{5, 120}, true},
		{"option:bootfile-name", "f", 4, 67, []byte("f"), true},
		{"ntp-server", "10.0.0.1, 10.0.0.2", 4, 42, []byte{10, 0, 0, 1, 10, 0, 0, 2}, true},
		{"ip-forward-enable", "1", 4, 19, []byte{1}, true},
		{"tcp-keepalive", "60", 4, 38, []byte{0, 0, 0, 60}, true},
		{"default-ttl", "64", 4, 23, []byte{64}, true},
		{"router", "", 4, 3, nil, true},
		{"224", "x", 4, 224, []byte("x"), true},
		{"mtu", "70000", 4, 26, nil, false},
		{"ntp-server", "fd00::1", 4, 42, nil, false},
		{"ntp-server", "x", 4, 42, nil, false},
		{"54", "10.0.0.1", 4, 0, nil, false}, // the server's own
		{"nothing", "x", 4, 0, nil, false},
		{"mtu", "1400", 6, 0, nil, false},
	} {
		code, told, ok := dhcpOption{c.name, c.value, c.version}.wire()
		if ok != c.ok || ok && (code != c.code || !bytes.Equal(told, c.told)) {
			t.Errorf("%s=%q: %d %v %v", c.name, c.value, code, told, ok)
		}
	}
}
