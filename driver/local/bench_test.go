package local_test

import (
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver/drivertest"
)

// BenchmarkBoot measures a spawn and a destroy with a cached image; the time
// for each is reported in ms.
func BenchmarkBoot(b *testing.B) {
	for name, ports := range map[string]int{"no port": 0, "one port": 1} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b)
			var spawn, destroy time.Duration
			n := 0
			for b.Loop() {
				req := request()
				if ports == 1 {
					req.Network = drivertest.Ready(port(nil))
				}
				began := time.Now()
				check(b, r.driver.Spawn(b.Context(), req))
				up := time.Now()
				check(b, r.driver.Destroy(b.Context(), req.UUID))
				down := time.Now()
				if n > 0 { // the first one imports
					spawn, destroy = spawn+up.Sub(began), destroy+down.Sub(up)
				}
				n++
				drain(r)
			}
			if n > 1 {
				b.ReportMetric(spawn.Seconds()*1000/float64(n-1), "spawn-ms")
				b.ReportMetric(destroy.Seconds()*1000/float64(n-1), "destroy-ms")
			}
		})
	}
}

// drain takes the events that are there.
func drain(r *rig) {
	for {
		select {
		case <-r.driver.Events():
		default:
			return
		}
	}
}
