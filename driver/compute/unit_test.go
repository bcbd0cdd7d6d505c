package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The whole matrix of vm and power states (nova-compute's
// _sync_instance_power_state). A dot is nothing, S stop, D delete, W warn.
func TestDecideSync(t *testing.T) {
	powers := []driver.PowerState{
		driver.PowerNoState, driver.PowerRunning, driver.PowerPaused, driver.PowerShutdown, driver.PowerCrashed, driver.PowerSuspended,
	}
	want := map[string]string{
		vmBuilding:         "......",
		vmActive:           "W.WSSS",
		vmPaused:           "...SS.",
		vmSuspended:        "......",
		vmStopped:          ".SS..S",
		vmRescued:          "......",
		vmResized:          "......",
		vmSoftDeleted:      ".WW.WW",
		vmDeleted:          ".WW.WW",
		vmError:            "......",
		vmShelved:          "......",
		vmShelvedOffloaded: "......",
	}
	letter := map[syncAction]string{syncNothing: ".", syncStop: "S", syncDelete: "D", syncWarn: "W"}
	for state, row := range want {
		var got strings.Builder
		for _, p := range powers {
			got.WriteString(letter[decideSync(state, p, false)])
		}
		if got.String() != row {
			t.Errorf("%s: %s, want %s", state, got.String(), row)
		}
	}
	if got := decideSync(vmActive, driver.PowerShutdown, true); got != syncDelete {
		t.Errorf("shutdown_terminate: %d", got)
	}
}

// Each verb ends in a state that is not the one of an unfinished build, and
// expects the tasks that the API sets.
func TestTransitions(t *testing.T) {
	for _, v := range []verb{verbStop, verbStart, verbRebootSoft, verbRebootHard, verbPause, verbUnpause, verbSoftDelete, verbRestore} {
		tr := transitionOf(v)
		if len(tr.expect) == 0 || tr.to == "" || tr.to == vmBuilding {
			t.Errorf("%s: %+v", v, tr)
		}
	}
	if got := transitionOf("dance"); got.to != "" {
		t.Errorf("unknown verb: %+v", got)
	}
}

func TestJudge(t *testing.T) {
	public := errdefs.WithPublic(errdefs.ErrInvalid, "No such command.")
	tests := []struct {
		name string
		err  error
		want verdict
		text string
	}{
		{"no room", fmt.Errorf("spawn: %w", errdefs.ErrExhausted), reschedule, "Insufficient compute resources."},
		{"unavailable", errdefs.ErrUnavailable, reschedule, "A service that the operation needs is not available."},
		{"anything", errors.New("open /var/lib/secret: no such file"), reschedule, unknownText},
		{"invalid", public, abort, "No such command."},
		{"corrupt", errdefs.ErrCorrupt, abort, "Stored or received data is damaged."},
		{"step decides", judged(abort, errdefs.ErrUnavailable), abort, "A service that the operation needs is not available."},
		{"deleted row", messaging.NovaError("InstanceNotFound", 404, "x"), silent, "x"},
		{"deleting", messaging.NovaError("UnexpectedDeletingTaskStateError", 500, "x"), silent, "x"},
		{"cancelled by a delete", fmt.Errorf("spawn: %w", errDeleted), silent, "The operation was cancelled."},
		{"delete wins over the step", judged(abort, errDeleted), silent, "The operation was cancelled."},
		{"task changed", messaging.NovaError("UnexpectedTaskStateError", 500, "x"), abort, "x"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := judge(tc.err); got != tc.want {
				t.Errorf("verdict %s, want %s", got, tc.want)
			}
			if got := tenantText(tc.err); got != tc.text {
				t.Errorf("text %q, want %q", got, tc.text)
			}
		})
	}
}

// Every class has its exception, whose text is for tenants.
func TestTranslate(t *testing.T) {
	for _, n := range names() {
		got := translate(fmt.Errorf("stop /var/lib/x: %w", n.class))
		if got.Message != n.text || n.nova != "" && got.Class != n.nova || n.nova == "" && got.Class != "NotImplementedError" {
			t.Errorf("%v = %+v", n.class, got)
		}
	}
	if got := translate(errors.New("/var/lib/x")); got.Class != "NovaException" || strings.Contains(got.Message, "/var") {
		t.Errorf("unclassed = %+v", got)
	}
}

func TestClip(t *testing.T) {
	for _, tc := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 5, "abc"}, {"abc", 2, "ab"}, {"aé", 2, "a"}, {"", 0, ""}} {
		if got := clip(tc.in, tc.n); got != tc.want {
			t.Errorf("clip(%q, %d) = %q", tc.in, tc.n, got)
		}
	}
}

func TestInstanceName(t *testing.T) {
	inst := objects.New("Instance")
	inst.SetClean("id", 42)
	inst.SetClean("uuid", "u-1")
	for template, want := range map[string]string{
		"instance-%08x": "instance-0000002a", "vm%d": "vm42", "%(uuid)s": "u-1", "i-%(id)s-%(uuid)s": "i-42-u-1", "fixed": "fixed",
	} {
		if got := instanceName(template, inst); got != want {
			t.Errorf("%s = %q, want %q", template, got, want)
		}
	}
}

func TestUptimeLine(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for up, want := range map[time.Duration]string{
		5 * time.Minute:             "up 5 min,",
		2*time.Hour + time.Minute:   "up  2:01,",
		50*time.Hour + 20*time.Hour: "up 2 days, 22:00,",
		24*time.Hour + time.Minute:  "up 1 day, 1 min,",
	} {
		if got := uptimeLine(now, up, [3]float64{}); !strings.Contains(got, want) || !strings.HasPrefix(got, " 03:04:05 ") {
			t.Errorf("%s: %q, want %q", up, got, want)
		}
	}
}

func waiting(timeout time.Duration, fatal bool) (*Manager, driver.EventWaiter) {
	m := New(Deps{}, Options{VIFPluggingTimeout: timeout, VIFPluggingFatal: fatal}, zerolog.Nop())
	return m, eventWaiter{m: m, log: zerolog.Nop()}
}

func TestEventWaiter(t *testing.T) {
	const limit = 300 * time.Second
	tests := []struct {
		name    string
		timeout time.Duration
		fatal   bool
		ports   []string
		run     func(*Manager)
		class   error
		took    time.Duration
	}{
		{"both come", limit, true, []string{"a", "b"}, func(m *Manager) {
			m.waiters.deliver("u", "b", false)
			time.Sleep(time.Second)
			m.waiters.deliver("u", "a", false)
		}, nil, time.Second},
		{"one is missing", limit, true, []string{"a", "b"}, func(m *Manager) { m.waiters.deliver("u", "a", false) }, errdefs.ErrUnavailable, limit},
		{"missing is not fatal", limit, false, []string{"a"}, func(*Manager) {}, nil, limit},
		{"wrong port", limit, true, []string{"a"}, func(m *Manager) { m.waiters.deliver("u", "z", false) }, errdefs.ErrUnavailable, limit},
		{"wrong instance", limit, true, []string{"a"}, func(m *Manager) { m.waiters.deliver("v", "a", false) }, errdefs.ErrUnavailable, limit},
		{"twice", limit, true, []string{"a", "b"}, func(m *Manager) {
			m.waiters.deliver("u", "a", false)
			m.waiters.deliver("u", "a", false)
		}, errdefs.ErrUnavailable, limit},
		{"failed", limit, true, []string{"a"}, func(m *Manager) { m.waiters.deliver("u", "a", true) }, errdefs.ErrUnavailable, 0},
		{"failed is not fatal", limit, false, []string{"a"}, func(m *Manager) { m.waiters.deliver("u", "a", true) }, nil, 0},
		{"switched off", 0, true, []string{"a"}, func(*Manager) {}, nil, 0},
		{"nothing to wait for", limit, true, nil, func(*Manager) {}, nil, 0},
		{"deleted", limit, true, []string{"a"}, func(m *Manager) { m.waiters.drop("u") }, errdefs.ErrAborted, 0},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, w := waiting(tc.timeout, tc.fatal)
				x := w.Expect("u", tc.ports)
				began := time.Now()
				go tc.run(m)
				err := x.Wait(t.Context())
				if tc.class == nil && err != nil || tc.class != nil && !errors.Is(err, tc.class) {
					t.Errorf("Wait = %v, want %v", err, tc.class)
				}
				if took := time.Since(began); took != tc.took {
					t.Errorf("took %s, want %s", took, tc.took)
				}
				x.Cancel()
				if len(m.waiters.m) != 0 {
					t.Errorf("waiters left: %v", m.waiters.m)
				}
			})
		})
	}
}

// An event between Expect and Wait counts; one before Expect does not.
func TestEarlyEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, w := waiting(time.Minute, true)
		if m.waiters.deliver("u", "a", false) {
			t.Error("an event was taken that nobody expects")
		}
		x := w.Expect("u", []string{"a"})
		if !m.waiters.deliver("u", "a", false) {
			t.Error("an expected event was dropped")
		}
		if err := x.Wait(t.Context()); err != nil {
			t.Errorf("Wait = %v", err)
		}
		y := w.Expect("u", []string{"a"})
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errDeleted)
		if err := y.Wait(ctx); !errors.Is(err, errDeleted) {
			t.Errorf("cancelled Wait = %v", err)
		}
		if err := w.Expect("u", []string{"a"}).Wait(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) || judge(err) != abort {
			t.Errorf("Wait = %v: the event of an earlier wait was remembered", err)
		}
	})
}

func TestActivities(t *testing.T) {
	var a activities
	ctx, end, ok := a.begin(t.Context(), "u", kindBuild)
	if !ok || !a.any("u") || a.any("v") {
		t.Fatal("a build is not registered")
	}
	if _, _, again := a.begin(t.Context(), "u", kindBuild); again {
		t.Error("a second build was let in")
	}
	if !a.postpone("u") || a.postpone("v") {
		t.Error("postpone")
	}
	a.cancel("u", errDeleted)
	if !errors.Is(context.Cause(ctx), errDeleted) {
		t.Errorf("cause = %v", context.Cause(ctx))
	}
	if !end() || a.any("u") {
		t.Error("end")
	}
	for i := range recentBuilds + 1 {
		if !a.once(fmt.Sprint(i)) {
			t.Fatalf("build %d is called old", i)
		}
	}
	if a.once(fmt.Sprint(recentBuilds)) || len(a.built) != recentBuilds || len(a.recent) != recentBuilds {
		t.Error("the memory of builds does not work or grows")
	}
}

// A slow refresh is not joined by a second one, but repeated once.
func TestRefreshes(t *testing.T) {
	var r refreshes
	if !r.want("u") || r.want("u") || r.want("u") {
		t.Error("want")
	}
	if !r.more("u") || r.more("u") || !r.want("u") {
		t.Error("more")
	}
}

// Foreign bytes in the arguments of a build are decoded or refused.
func FuzzBuildArgs(f *testing.F) {
	f.Add([]byte(`{"id":"i","size":7,"properties":{"a":null,"b":[1]}}`), []byte(`[["/x","aGk="]]`), []byte(`{"retry":{"num_attempts":2}}`))
	f.Add([]byte(`{}`), []byte(`null`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, image, files, filters []byte) {
		o := &op{name: "build", inst: objects.New("Instance"), req: &messaging.Request{Args: map[string]json.RawMessage{
			"image": image, "injected_files": files, "filter_properties": filters,
		}}}
		var a buildArgs
		if err := a.decode(o); err != nil {
			return
		}
		_ = a.refuse(o.inst)
		if a.mayRetry() {
			a.again(o.inst, errors.New("x"))
		}
		a.tries()
	})
}
