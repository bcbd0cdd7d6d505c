package tracker

import (
	"encoding/json"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// limits is what the scheduler allows in all (SchedulerLimits as a dictionary).
// Since Train it is empty: placement has decided. Absent means no limit.
type limits struct {
	MemoryMB *float64 `json:"memory_mb"`
	DiskGB   *float64 `json:"disk_gb"`
	VCPU     *float64 `json:"vcpu"`
}

// parseLimits reads the limits argument of a build: null, a dictionary, or the
// object that newer schedulers may send.
func parseLimits(raw json.RawMessage) (limits, error) {
	var l limits
	if len(raw) == 0 || string(raw) == "null" {
		return l, nil
	}
	var object struct {
		Data json.RawMessage `json:"nova_object.data"`
	}
	if err := json.Unmarshal(raw, &object); err != nil {
		return l, fmt.Errorf("read scheduler limits: %w: %w", errdefs.ErrInvalid, err)
	}
	if len(object.Data) > 0 {
		raw = object.Data
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return l, fmt.Errorf("read scheduler limits: %w: %w", errdefs.ErrInvalid, err)
	}
	return l, nil
}

// fit says whether an instance may come to a host: by itself it must not be
// larger than the host, and with the others not beyond the limits given. The
// sum is not tested against the host's totals, for that is placement's to
// decide, with ratios that an operator may change there.
//
// The error is errdefs.ErrExhausted with a text for tenants that tells no
// figure of the host.
func fit(want usage, have driver.Resources, now totals, l limits) error {
	checks := []struct {
		what              string
		want, total, used int64
		limit             *float64
	}{
		{"memory", want.memoryMB, have.MemoryMB, now.memoryMB, l.MemoryMB},
		{"vcpus", want.vcpus, have.VCPUs, now.vcpus, l.VCPU},
		{"disk", want.diskMB, have.DiskGB * 1024, now.diskMB, scaled(l.DiskGB, 1024)},
	}
	for _, c := range checks {
		if c.want < 0 {
			return fmt.Errorf("claim: negative %s %d: %w", c.what, c.want, errdefs.ErrInvalid)
		}
		if c.want > c.total {
			return refuse(c.what, fmt.Errorf("claim: %s %d is more than the host's %d: %w", c.what, c.want, c.total, errdefs.ErrExhausted))
		}
		if c.limit != nil && float64(c.used+c.want) > *c.limit {
			return refuse(c.what, fmt.Errorf("claim: %s %d above %d in use passes the limit %v: %w",
				c.what, c.want, c.used, *c.limit, errdefs.ErrExhausted))
		}
	}
	return nil
}

func refuse(what string, err error) error {
	return errdefs.WithPublic(err, "Insufficient compute resources: the host cannot take the "+what+" that the flavor asks for.")
}

func scaled(v *float64, by float64) *float64 {
	if v == nil {
		return nil
	}
	return new(*v * by)
}
