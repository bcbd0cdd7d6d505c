package local

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
)

func TestTrafficOfAFlavor(t *testing.T) {
	for specs, want := range map[string]netbridge.Limits{
		"":                               {},
		"quota:vif_outbound_average=0":   {},
		"quota:vif_outbound_average=125": {Outbound: netbridge.Limit{Rate: 125_000}},
		"quota:vif_inbound_average=10 quota:vif_inbound_peak=20 quota:vif_inbound_burst=8": {Inbound: netbridge.Limit{Rate: 10_000, Peak: 20_000, Burst: 8192}},
		"quota:vif_inbound_average=10 quota:vif_inbound_peak=10":                           {Inbound: netbridge.Limit{Rate: 10_000}},
		"quota:vif_inbound_average=4294967 quota:vif_inbound_burst=1048576":                {Inbound: netbridge.Limit{Rate: 4294967000, Burst: 1 << 30}},
	} {
		f := flavorWith(specs)
		got, err := trafficOf(f)
		if diff := cmp.Diff(want, got); err != nil || diff != "" || possible(f) != nil {
			t.Errorf("%s: %v %v %s", specs, err, possible(f), diff)
		}
		plan := netbridge.Plan{Owner: "o", NetNS: "/ns", Interfaces: []netbridge.Interface{{
			ID: portA, HostName: "tap", MAC: "fa:16:3e:00:00:01", Attachment: netbridge.AttachBridge, Bridge: "br", Limits: got,
		}}}
		if err := netbridge.Validate(plan); err != nil {
			t.Errorf("%s: %v", specs, err)
		}
	}
	for specs, says := range map[string]string{
		"quota:vif_outbound_average=-1":                          "quota:vif_outbound_average must be a number within",
		"quota:vif_outbound_average=fast":                        "quota:vif_outbound_average must be a number within",
		"quota:vif_inbound_average=4294968":                      "quota:vif_inbound_average must be a number within",
		"quota:vif_inbound_peak=1":                               "quota:vif_inbound_average must be a number above 0",
		"quota:vif_inbound_burst=1":                              "quota:vif_inbound_average must be a number above 0",
		"quota:vif_outbound_average=9 quota:vif_outbound_peak=8": "quota:vif_outbound_peak must be at least the average",
	} {
		if _, err := trafficOf(flavorWith(specs)); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.PublicText(err, ""), says) {
			t.Errorf("%s: %v, says %q", specs, err, errdefs.PublicText(err, ""))
		}
	}
}

// TestTrafficOfPorts: every port of an instance has the limits, but where they
// would not hold.
func TestTrafficOfPorts(t *testing.T) {
	l := netbridge.Limits{Inbound: netbridge.Limit{Rate: 1}}
	for name, c := range map[string]struct {
		vif   objects.VIF
		class error
	}{
		"bridge": {vif(portA, "bridge", net1), nil},
		"tap":    {vif(portA, "tap", net1), nil},
		"hybrid": {ovsPort("br-int", `{"ovs_hybrid_plug": true}`), nil},
		"plain":  {ovsPort("br-int", `{}`), errdefs.ErrUnsupported},
	} {
		plan, err := networkPlan("owner", "/ns", objects.NetworkInfo{c.vif})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := limited(plan, netbridge.Limits{}); err != nil {
			t.Errorf("%s, without limits: %v", name, err)
		}
		plan, err = limited(plan, l)
		switch {
		case !errors.Is(err, c.class):
			t.Errorf("%s: %v, want %v", name, err, c.class)
		case err != nil && errdefs.PublicText(err, "") == "":
			t.Errorf("%s: nothing for the tenant: %v", name, err)
		case err == nil && (plan.Interfaces[0].Limits != l || netbridge.Validate(plan) != nil):
			t.Errorf("%s: %+v, %v", name, plan.Interfaces[0].Limits, netbridge.Validate(plan))
		}
	}
}
