package daemon

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/messaging"
)

// overdue is how much later than promised something of the service may come
// before it counts as stuck. It is long: a host that is out of breath is not
// helped by a restart.
const overdue = time.Minute

// watch tells the attendant what the service cannot do without, and what its
// report says of it. None of it asks the control plane or the broker: that they
// are away is no reason to restart.
func (s *computeService) watch(p *parts) {
	s.attendant.watch("events", p.manager.Alive)
	s.attendant.watch("reports", func(context.Context) error {
		last := p.record.Reported()
		if limit := 3*s.cfg.Default.ReportInterval + overdue; !last.IsZero() && time.Since(last) > limit {
			return fmt.Errorf("no report to the control plane was tried for %s", time.Since(last).Round(time.Second))
		}
		return nil
	})
	s.attendant.watch("broker connections", func(context.Context) error { return s.wire.stuck(time.Now()) })
	s.attendant.report.add("Operations", func(_ context.Context, w io.Writer) error {
		for _, o := range p.manager.Operations() {
			if _, err := fmt.Fprintf(w, "%s instance=%s req=%s for %s\n", o.Name, o.Instance, o.Request, time.Since(o.Since).Round(time.Millisecond)); err != nil {
				return err
			}
		}
		return nil
	})
	s.attendant.report.add("Locks of instances (who has or wants them)", func(_ context.Context, w io.Writer) error {
		locks := p.manager.Locks()
		for _, uuid := range slices.Sorted(maps.Keys(locks)) {
			if _, err := fmt.Fprintf(w, "%s %d\n", uuid, locks[uuid]); err != nil {
				return err
			}
		}
		return nil
	})
}

// connections are those of the transport; one within the process has none.
func (w *wire) connections() []messaging.Connection {
	if c, ok := w.transport.(messaging.Connected); ok {
		return c.Connections()
	}
	return nil
}

// state is a word for the service manager.
func (w *wire) state() string {
	for _, c := range w.connections() {
		if !c.Up {
			return "away: " + c.Purpose + ": " + c.Phase
		}
	}
	return "connected"
}

// stuck says which connection nobody cares for any more.
func (w *wire) stuck(now time.Time) error {
	for _, c := range w.connections() {
		if !c.Until.IsZero() && now.After(c.Until.Add(overdue)) {
			return fmt.Errorf("connection to %s: %s since %s", c.Purpose, c.Phase, c.Since.Format(time.RFC3339))
		}
	}
	return nil
}

// describeProcess adds what is known before anything is open.
func describeProcess(r *report, cfg *config.Config, version string) {
	began := time.Now()
	r.add("gantry", func(_ context.Context, w io.Writer) error {
		_, err := fmt.Fprintf(w, "version %s, %s %s/%s, pid %d, host %s, up %s, now %s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH,
			os.Getpid(), cfg.Default.Host, time.Since(began).Round(time.Second), time.Now().Format(time.RFC3339))
		return err
	})
	r.add("Memory", func(_ context.Context, w io.Writer) error {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		_, err := fmt.Fprintf(w, "heap %d KiB in use, %d KiB from the system, %d collections, %d goroutines\n",
			m.HeapInuse>>10, m.Sys>>10, m.NumGC, runtime.NumGoroutine())
		return err
	})
	r.add("Configuration at the start", func(_ context.Context, w io.Writer) error { return cfg.Write(w) })
}

// describeHost adds engine and connections.
func describeHost(r *report, h *host, w *wire) {
	r.add("Containers", func(ctx context.Context, out io.Writer) error {
		list, err := h.engine.engine.List(ctx)
		if err != nil {
			return err
		}
		count := map[string]int{}
		for _, c := range list {
			count[string(c.Status)]++
		}
		_, err = fmt.Fprintf(out, "%d in all%s\n", len(list), counted(count))
		return err
	})
	r.add("Locks of containers (who has or wants them)", func(_ context.Context, out io.Writer) error {
		for id, n := range h.engine.engine.Locks() {
			if _, err := fmt.Fprintf(out, "%s %d\n", id, n); err != nil {
				return err
			}
		}
		return nil
	})
	r.add("Connections to the broker", func(_ context.Context, out io.Writer) error {
		for _, c := range w.connections() {
			if _, err := fmt.Fprintf(out, "%s: up=%t, %s since %s\n", c.Purpose, c.Up, c.Phase, c.Since.Format(time.RFC3339)); err != nil {
				return err
			}
		}
		return nil
	})
	r.add("Keeper", func(ctx context.Context, out io.Writer) error {
		hello, err := h.engine.keeper.Hello(ctx)
		if err == nil {
			_, err = fmt.Fprintf(out, "answers: %+v\n", hello)
		}
		return err
	})
}

func counted(count map[string]int) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(&b, ", %d %s", count[k], k)
	}
	return b.String()
}
