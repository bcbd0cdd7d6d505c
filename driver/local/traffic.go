package local

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
)

// The extra specs that limit what each interface carries, by direction
// (nova/virt/libvirt/designer.py, set_vif_bandwidth_config): average and peak in
// kilobytes per second, of 1000 bytes as tc has them, burst in kilobytes of 1024.
const (
	trafficIn  = "quota:vif_inbound_"
	trafficOut = "quota:vif_outbound_"
	rateUnit   = 1000
	burstUnit  = 1024
)

// isTraffic says whether an extra spec is one of them.
func isTraffic(key string) bool {
	for _, direction := range []string{trafficIn, trafficOut} {
		for _, what := range []string{"average", "peak", "burst"} {
			if key == direction+what {
				return true
			}
		}
	}
	return false
}

// trafficOf is what a flavor says of each interface; what is no number, out of
// its range, or a peak or burst of no average is errdefs.ErrInvalid.
func trafficOf(f driver.Flavor) (netbridge.Limits, error) {
	s := specs{flavor: f}
	return netbridge.Limits{Inbound: s.traffic(trafficIn), Outbound: s.traffic(trafficOut)}, s.err
}

func (s *specs) traffic(direction string) netbridge.Limit {
	var average, peak, burst int64
	s.number(direction+"average", 0, netbridge.MaxRate/rateUnit, &average)
	s.number(direction+"peak", 0, netbridge.MaxRate/rateUnit, &peak)
	s.number(direction+"burst", 0, netbridge.MaxBurst/burstUnit, &burst)
	switch {
	case average == 0 && (peak != 0 || burst != 0):
		s.refuse(direction+"average", "a number above 0 where there is a peak or a burst")
	case peak != 0 && peak < average:
		s.refuse(direction+"peak", "at least the average")
	case peak == average:
		peak = 0
	}
	return netbridge.Limit{Rate: average * rateUnit, Peak: peak * rateUnit, Burst: burst * burstUnit}
}

// networkPlan is the plan of an instance that is here, with the limits of its
// flavor.
func (d *Driver) networkPlan(ctx context.Context, uuid driver.InstanceUUID, netns string, vifs objects.NetworkInfo) (netbridge.Plan, error) {
	plan, err := networkPlan(string(uuid), netns, vifs)
	if err != nil {
		return plan, err
	}
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return plan, err
	}
	g, err := guestOf(s)
	if err != nil {
		return plan, err
	}
	return limited(plan, g.Traffic)
}

// limited gives each interface the limits. Open vSwitch undoes what others do
// to its own ports: errdefs.ErrUnsupported.
func limited(plan netbridge.Plan, l netbridge.Limits) (netbridge.Plan, error) {
	if l == (netbridge.Limits{}) {
		return plan, nil
	}
	for n := range plan.Interfaces {
		i := &plan.Interfaces[n]
		if i.Attachment == netbridge.AttachOVS && !i.OVS.Hybrid {
			return plan, errdefs.WithPublic(fmt.Errorf("port %s: limits of the flavor on a port of open vswitch: %w", i.ID, errdefs.ErrUnsupported),
				"The flavor limits network interfaces, which ports of Open vSwitch have by Neutron's QoS policies only.")
		}
		i.Limits = l
	}
	return plan, nil
}
