package keeper_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/keeper"
	"github.com/gantry-project/gantry/engine/process/processtest"
)

// pss is what a process has of the host's memory, in KiB.
func pss(t testing.TB, pid int) int {
	t.Helper()
	for line := range strings.Lines(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))))) {
		if n := 0; strings.HasPrefix(line, "Pss:") {
			if _, err := fmt.Sscan(strings.TrimPrefix(line, "Pss:"), &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no Pss of process %d", pid)
	return 0
}

func cpuTicks(t testing.TB, pid int) int {
	t.Helper()
	text := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))))
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	var user, system int
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return user + system
}

// BenchmarkKeep measures what each kept process costs the keeper: b.N of them.
func BenchmarkKeep(b *testing.B) {
	f := processtest.NewFixture(b)
	c := start(b, options(b, 0))
	h, err := c.Hello(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	before := pss(b, h.Pid)
	for i := range b.N {
		if _, err := c.Start(b.Context(), fmt.Sprint(i), f.Spec(b, "sleep", "100000")); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	ticks := cpuTicks(b, h.Pid)
	report := func(name string, hello keeper.Hello) {
		b.ReportMetric(float64(pss(b, hello.Pid)-before)/float64(b.N), name+"-KiB/op")
	}
	report("started", h)
	killed(b, h)
	now, err := c.Hello(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	report("adopted", now)
	b.ReportMetric(float64(pss(b, h.Guard)), "guard-KiB")
	b.ReportMetric(float64(ticks), "ticks")
	for i := range b.N {
		if err := c.Signal(b.Context(), fmt.Sprint(i), 9); err != nil {
			b.Error(err)
		}
	}
	for i := range b.N {
		if _, err := c.Wait(b.Context(), fmt.Sprint(i)); err != nil {
			b.Error(err)
		}
		if err := c.Forget(b.Context(), fmt.Sprint(i)); err != nil {
			b.Error(err)
		}
	}
}

func killed(b *testing.B, h keeper.Hello) {
	b.Helper()
	kill(b, h.Pid)
}
