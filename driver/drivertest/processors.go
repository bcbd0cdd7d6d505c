package drivertest

import (
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// An instance has the processors that it is given, as many as its flavor says.
func testProcessors(t *testing.T, e *env) {
	res, err := e.d.Resources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var own []int
	for _, c := range res.Cells {
		own = append(own, c.Dedicated...)
		if c.MemoryMB < 1 || c.PageKB < 1 || len(c.Siblings) == 0 {
			t.Errorf("implausible: %+v", c)
		}
	}
	if has := e.d.Capabilities().Processors; has != (len(own) > 0) {
		t.Errorf("capability Processors is %t, the host has %v", has, own)
	}
	req := e.request(t)
	req.Flavor.VCPUs, req.Flavor.Processors = 1, []int{0}
	if len(own) == 0 {
		wantClass(t, "Spawn with processors", e.d.Spawn(t.Context(), req), errdefs.ErrInvalid)
		return
	}
	req.Flavor.Processors = []int{own[0], own[len(own)-1] + 1}
	wantClass(t, "Spawn with too many processors", e.d.Spawn(t.Context(), req), errdefs.ErrInvalid)
	req.Flavor.Processors = []int{own[len(own)-1] + 1}
	wantClass(t, "Spawn with a processor that is not given away", e.d.Spawn(t.Context(), req), errdefs.ErrInvalid)
	req.Flavor.Processors = own[:1]
	e.spawned = append(e.spawned, req.UUID)
	if err := e.d.Spawn(t.Context(), req); err != nil {
		t.Fatalf("Spawn: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
}
