package compute

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/logging"
)

// getHostUptime returns a line in the manner of uptime(1), which the
// hypervisors API shows as it is.
func (m *Manager) getHostUptime(ctx context.Context, _ *op) (any, error) {
	r, err := m.dep.Driver.Resources(ctx)
	if err != nil {
		return nil, fmt.Errorf("uptime of the host: %w", err)
	}
	return uptimeLine(time.Now(), r.Uptime, r.LoadAverage), nil
}

func uptimeLine(now time.Time, up time.Duration, load [3]float64) string {
	days, minutes := int(up/(24*time.Hour)), int(up/time.Minute)%(24*60)
	text := ""
	switch {
	case days == 1:
		text = "1 day, "
	case days > 1:
		text = fmt.Sprintf("%d days, ", days)
	}
	if minutes < 60 {
		text += fmt.Sprintf("%d min", minutes)
	} else {
		text += fmt.Sprintf("%2d:%02d", minutes/60, minutes%60)
	}
	return fmt.Sprintf(" %s up %s,  0 users,  load average: %.2f, %.2f, %.2f\n",
		now.Format("15:04:05"), text, load[0], load[1], load[2])
}

// setHostEnabled keeps the scheduler away from a disabled host. The service
// record itself is the API's.
func (m *Manager) setHostEnabled(ctx context.Context, o *op) (any, error) {
	enabled := true
	if err := o.arg("enabled", &enabled); err != nil {
		return nil, err
	}
	if err := m.dep.Tracker.SetHostEnabled(ctx, o.rc, enabled); err != nil {
		return nil, fmt.Errorf("set host enabled to %t: %w", enabled, err)
	}
	if enabled {
		return "enabled", nil
	}
	return "disabled", nil
}

// cacheImages fetches images ahead, one by one, and says of each what came of it
// (nova/compute/manager.py, cache_images).
func (m *Manager) cacheImages(ctx context.Context, o *op) (any, error) {
	var ids []string
	if err := o.arg("image_ids", &ids); err != nil {
		return nil, err
	}
	out := map[string]string{}
	cacher, ok := m.dep.Driver.(driver.ImageCacher)
	for _, id := range ids {
		if !ok {
			out[id] = "unsupported"
			continue
		}
		fetched, err := cacher.CacheImage(ctx, credentials(o.rc), id)
		switch {
		case err != nil:
			out[id] = "error"
			o.log.Warn().Err(err).Str(logging.Image, id).Msg("image was not cached")
		case fetched:
			out[id] = "cached"
		default:
			out[id] = "existing"
		}
	}
	return out, nil
}
