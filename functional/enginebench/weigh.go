package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/functional/measure"
)

// weight is memory: pss of processes in MiB, and what the kernel holds for the
// whole machine in KiB.
type weight struct{ pss, kernel float64 }

// household are the service and everything that it needs to live: its keeper,
// the keeper's guard.
func (b *session) household() ([]int, error) {
	out := []int{b.ours.service.Process.Pid}
	dir, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(b.ours.root, "keeper.sock")
	for _, e := range dir {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && strings.Contains(string(line), socket) {
			out = append(out, pid)
			if parent := parentOf(pid); parent > 1 && !contains(out, parent) {
				out = append(out, parent)
			}
		}
	}
	return out, nil
}

func contains(list []int, n int) bool {
	for _, v := range list {
		if v == n {
			return true
		}
	}
	return false
}

// parentOf is 0 for a process that is gone.
func parentOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(v))
			return n
		}
	}
	return 0
}

// weigh adds up the household and the given processes.
func (b *session) weigh(more []int) (weight, error) {
	pids, err := b.household()
	if err != nil {
		return weight{}, err
	}
	var w weight
	if w.pss, err = measure.PSS(append(pids, more...)); err != nil {
		return weight{}, err
	}
	for _, name := range []string{"Slab:", "KernelStack:", "PageTables:", "Percpu:"} {
		kib, err := measure.KiB("/proc/meminfo", name)
		if err != nil {
			return weight{}, err
		}
		w.kernel += kib
	}
	return w, nil
}

// idleCPU is the part of one core that the household uses while nothing is
// asked of it.
func (b *session) idleCPU(ctx context.Context) (float64, error) {
	pids, err := b.household()
	if err != nil {
		return 0, err
	}
	const span = 20 * time.Second
	used := func() (total time.Duration) {
		for _, pid := range pids {
			var ts unix.Timespec
			// the process's CPU clock, see clock_getcpuclockid(3)
			if unix.ClockGettime(int32(^pid)<<3|2, &ts) == nil {
				total += time.Duration(ts.Nano())
			}
		}
		return total
	}
	// what the starts and deletions before have left to do is not idleness
	if err := pause(ctx, 3*time.Second); err != nil {
		return 0, err
	}
	before := used()
	if err := pause(ctx, span); err != nil {
		return 0, err
	}
	return float64(used()-before) / float64(span), nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
