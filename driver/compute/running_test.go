package compute_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver/fake"
)

func TestOperationsUnderWay(t *testing.T) {
	r := newRig(t, noWait)
	r.watch()
	inst := r.active()
	if err := r.m.Alive(t.Context()); err != nil {
		t.Error(err)
	}
	if list := r.m.Operations(); len(list) != 0 {
		t.Errorf("idle: %+v", list)
	}
	entered, release := r.drv.Stall(fake.StepOff)
	r.ask(inst, "stop", "powering-off", "stop_instance", nil)
	<-entered
	list, locks := r.m.Operations(), r.m.Locks()
	if len(list) != 1 || list[0].Name != "stop_instance" || list[0].Instance != inst.String("uuid") || list[0].Request == "" || list[0].Since.IsZero() {
		t.Errorf("under way: %+v", list)
	}
	if len(locks) != 1 || locks[inst.String("uuid")] != 1 {
		t.Errorf("locks: %v", locks)
	}
	release()
	r.waitState(inst, "stopped")
}

func TestNobodyTakesEvents(t *testing.T) {
	r := newRig(t, noWait)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := r.m.Alive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody watches: %v", err)
	}
}
