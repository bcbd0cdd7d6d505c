package drivertest

import (
	"testing"

	"github.com/gantry-project/gantry/driver"
)

// testGuestReboot: a guest that reboots itself comes again, runs for all that
// anybody can see, and obeys as before.
func testGuestReboot(t *testing.T, e *env) {
	c, ok := e.d.(driver.ConsoleReader)
	if !ok || !e.d.Capabilities().GuestReboot || e.h.Reboot == nil {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	said := func() int {
		out, err := c.ConsoleOutput(ctx, req.UUID, -1)
		if err != nil {
			t.Fatalf("ConsoleOutput: %v", err)
		}
		return len(out)
	}
	wait(t, "a line on the console", func() bool { return said() > 0 })
	for range 2 {
		before := said()
		e.h.Reboot(t, e.d, req.UUID)
		wait(t, "the next boot on the console", func() bool {
			e.wantState(t, req.UUID, driver.PowerRunning)
			return said() > before
		})
		e.wantState(t, req.UUID, driver.PowerRunning)
	}
	if s, ok := e.d.(driver.EventSource); ok {
		select {
		case ev := <-s.Events():
			t.Errorf("an event: %+v", ev)
		default:
		}
	}
	// one that is stopped at that moment stays so
	e.h.Reboot(t, e.d, req.UUID)
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	e.wantState(t, req.UUID, driver.PowerShutdown)
	if err := e.d.PowerOn(ctx, driver.PowerOnRequest{UUID: req.UUID}); err != nil {
		t.Fatal(err)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
	// and one that is destroyed leaves nothing (the suite looks)
	e.h.Reboot(t, e.d, req.UUID)
}
