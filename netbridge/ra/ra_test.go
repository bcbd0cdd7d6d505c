package ra_test

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/netbridge/ra"
)

func TestMarshal(t *testing.T) {
	for name, c := range map[string]struct {
		advert ra.Advert
		want   []string
	}{
		"nothing": {ra.Advert{}, []string{"8600000040002328" + "0000000000000000"}},
		"all": {ra.Advert{
			MAC: "02:00:00:00:00:01", MTU: 1450, Managed: true, Other: true,
			Prefixes: []ra.Prefix{
				{Network: netip.MustParsePrefix("fd00::1/64"), Autonomous: true},
				{Network: netip.MustParsePrefix("fd01::/80")},
			},
			DNS: []netip.Addr{netip.MustParseAddr("fd00::53"), netip.MustParseAddr("fd00::54")}, Domain: "a.example",
		}, []string{
			"8600000040c02328" + "0000000000000000",
			"0101020000000001",
			"05010000000005aa",
			"030440c0ffffffffffffffff00000000fd000000000000000000000000000000",
			"03045080ffffffffffffffff00000000fd010000000000000000000000000000",
			"1905000000002328fd000000000000000000000000000053fd000000000000000000000000000054",
			"1f03000000002328" + "0161076578616d706c6500" + "0000000000",
		}},
	} {
		if got, want := hex.EncodeToString(c.advert.Marshal()), strings.Join(c.want, ""); got != want {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
	}
}

func FuzzSolicitation(f *testing.F) {
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{133})
	f.Fuzz(func(t *testing.T, b []byte) {
		if ra.Solicitation(b) && (len(b) < 8 || b[0] != 133) {
			t.Error("is none")
		}
	})
}
