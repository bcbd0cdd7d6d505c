package server

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gantry-project/gantry/engine/view"
	"github.com/gantry-project/gantry/internal/linux"
)

// Bounds of what one look at the tasks of a guest costs.
const (
	countEvery = time.Second
	maxTasks   = 512
	maxGroups  = 256
	// recent is how long back the tasks that run now are taken to have run.
	recent = 30 * time.Second
)

// loads are the load averages of a guest. The kernel counts the tasks of the
// host every five seconds and has none for groups. Nobody counts those of a
// guest that does not ask: the time before it asked is known by the processor
// time that was used, of which each task that runs uses what there is.
type loads struct {
	averages [3]float64
	at, used time.Duration // of the guest's uptime, and then
	count    view.Load     // of tasks
	counted  time.Duration // when, by the host's uptime
}

// next moves on to an uptime, with the processor time that was used since the
// boot.
func (l *loads) next(uptime, used time.Duration) view.Load {
	if uptime < l.at || used < l.used { // another boot
		*l = loads{count: l.count, counted: l.counted}
	}
	if passed := uptime - l.at; passed > 0 {
		rate := float64(used-l.used) / float64(passed)
		now := max(rate, float64(l.count.Running+l.count.Blocked))
		l.decay(rate, max(passed-recent, 0))
		l.decay(now, min(passed, recent))
		l.at, l.used = uptime, used
	}
	out := l.count
	out.One, out.Five, out.Fifteen = l.averages[0], l.averages[1], l.averages[2]
	return out
}

// decay is the average's course while so many tasks ran (kernel/sched/loadavg.c).
func (l *loads) decay(running float64, passed time.Duration) {
	for i, over := range [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute} {
		old := math.Exp(-float64(passed) / float64(over))
		l.averages[i] = l.averages[i]*old + running*(1-old)
	}
}

// countTasks counts the tasks of a group and its sub-groups. The reader, who
// waits for the answer, runs. Of a guest with many more than maxTasks the counted
// ones stand for all.
func countTasks(dir string, reader int) view.Load {
	var load view.Load
	looked := 0
	groups := []string{dir}
	for n := 0; n < len(groups) && n < maxGroups; n++ {
		text, err := linux.ReadFile(filepath.Join(groups[n], "cgroup.procs"))
		if err != nil {
			continue
		}
		for pid := range strings.FieldsSeq(string(text)) {
			if looked >= maxTasks {
				load.All++ // at least one
				continue
			}
			looked += countProcess(&load, pid, strconv.Itoa(reader))
		}
		below, err := os.ReadDir(groups[n])
		for _, e := range below {
			if err == nil && e.IsDir() {
				groups = append(groups, filepath.Join(groups[n], e.Name()))
			}
		}
	}
	return load
}

// countProcess counts the tasks of one process.
func countProcess(load *view.Load, pid, reader string) (tasks int) {
	list, err := os.ReadDir("/proc/" + pid + "/task")
	if err != nil {
		return 0
	}
	for _, e := range list {
		if tasks++; tasks > maxTasks {
			break
		}
		state := byte('R')
		if e.Name() != reader {
			stat, err := linux.ReadFile("/proc/" + pid + "/task/" + e.Name() + "/stat")
			if err != nil {
				continue
			}
			state = taskState(stat)
		}
		switch state {
		case 'R':
			load.Running++
		case 'D':
			load.Blocked++
		case 'Z', 'X', 0:
			continue
		}
		load.All++
	}
	return tasks
}

// taskState is the third field of proc_pid_stat(5), 0 if there is none.
func taskState(stat []byte) byte {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 || end+2 >= len(stat) {
		return 0
	}
	return stat[end+2]
}
