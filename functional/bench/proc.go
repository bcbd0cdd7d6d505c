package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// userHZ is the unit of times in /proc/PID/stat on every architecture of Linux
// that Go runs on.
const userHZ = 100

// process is what /proc/PID/stat says (proc_pid_stat(5)).
type process struct {
	parent, group int
	reaped        time.Duration // cutime + cstime
}

func parseStat(text []byte) (process, error) {
	i := bytes.LastIndexByte(text, ')') // the name may hold anything
	if i < 0 {
		return process{}, fmt.Errorf("stat %q has no name", text)
	}
	f := strings.Fields(string(text[i+1:]))
	if len(f) < 15 {
		return process{}, fmt.Errorf("stat %q is short", text)
	}
	var n [4]int
	for k, at := range []int{1, 2, 13, 14} {
		v, err := strconv.Atoi(f[at])
		if err != nil {
			return process{}, fmt.Errorf("stat %q: %w", text, err)
		}
		n[k] = v
	}
	return process{parent: n[0], group: n[1], reaped: time.Duration(n[2]+n[3]) * time.Second / userHZ}, nil
}

// family is all processes of the leaders' groups, and their descendants.
func family(leaders []int) (map[int]process, error) {
	dir, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all, children := map[int]process{}, map[int][]int{}
	for _, e := range dir {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // gone meanwhile
		}
		p, err := parseStat(text)
		if err != nil {
			return nil, err
		}
		all[pid] = p
		children[p.parent] = append(children[p.parent], pid)
	}
	var todo []int
	for pid, p := range all {
		for _, l := range leaders {
			if pid == l || p.group == l {
				todo = append(todo, pid)
			}
		}
	}
	out := map[int]process{}
	for len(todo) > 0 {
		pid := todo[0]
		todo = todo[1:]
		if _, seen := out[pid]; seen {
			continue
		}
		out[pid] = all[pid]
		todo = append(todo, children[pid]...)
	}
	for _, l := range leaders {
		if _, ok := out[l]; !ok {
			return nil, fmt.Errorf("process %d is gone", l)
		}
	}
	return out, nil
}

// cpu is the processor time that the leaders, their groups and descendants
// have used, with that of children already waited for.
func cpu(leaders []int) (time.Duration, error) {
	procs, err := family(leaders)
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for pid, p := range procs {
		total += p.reaped
		// the process's CPU clock, to the nanosecond; see clock_getcpuclockid(3)
		var ts unix.Timespec
		if unix.ClockGettime(int32(^pid)<<3|2, &ts) == nil {
			total += time.Duration(ts.Nano())
		}
	}
	return total, nil
}

// memory is the resident and the proportional set size in MiB.
func memory(leaders []int) (rss, pss float64, processes int, err error) {
	procs, err := family(leaders)
	if err != nil {
		return 0, 0, 0, err
	}
	for pid := range procs {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		r, p := parseRollup(string(text))
		rss, pss = rss+r, pss+p
	}
	return rss, pss, len(procs), nil
}

func parseRollup(text string) (rss, pss float64) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "Rss:":
			rss = kib / 1024
		case "Pss:":
			pss = kib / 1024
		}
	}
	return rss, pss
}
