package engine

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/linux"
)

// killPatience bounds how long killMembers looks for what was forked while it
// killed: a process in an uninterruptible call neither stops nor ends.
const killPatience = 2 * time.Second

// killMembers ends the processes of an exec session but the first, which has
// been sent SIGSTOP: it would go on with others. A signal takes effect when the
// process next looks, and what forks until then is seen by no list made before,
// so it looks until the first one has stopped or ended and nobody else lives.
func (e *Engine) killMembers(ctx context.Context, s *session) {
	group, err := e.opts.Cgroups.Open(ctx, string(s.container))
	if err != nil {
		return
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(killPatience); ; {
		quiet := stopped(s.process.Pid) // before the list is read: nothing comes after it then
		if killOnce(ctx, group, s) == 0 && quiet || time.Now().After(deadline) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// killOnce kills the members that there are now and counts them; one that was
// killed before counts until it has ended. Each is held by a pidfd before it is
// looked at, so that no number is used again meanwhile.
func killOnce(ctx context.Context, group cgroup.Group, s *session) (alive int) {
	pids, err := group.Pids(ctx)
	if err != nil {
		return 0
	}
	for _, pid := range pids {
		if pid == s.process.Pid {
			continue
		}
		fd, err := linux.PidfdOpen(pid)
		if err != nil {
			continue
		}
		state, sid := stateAndSession("/proc/" + strconv.Itoa(pid) + "/stat")
		if !hasEnded(state) && sid == s.process.Pid && linux.PidfdSignal(fd, int(unix.SIGKILL)) == nil {
			alive++
		}
		_ = fd.Close()
	}
	return alive
}

// stopped tells whether no thread of a process can fork any more: all are
// stopped (or held by a tracer), or have ended.
func stopped(pid int) bool {
	threads, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	for _, stat := range threads {
		if state, _ := stateAndSession(stat); state != 'T' && state != 't' && !hasEnded(state) {
			return false
		}
	}
	return true
}

// hasEnded tells whether a letter of proc(5) is that of a process that runs no
// more; 0 is that of none.
func hasEnded(state byte) bool { return state == 0 || state == 'Z' || state == 'X' }

// stateAndSession are fields 3 and 6 of a stat file of proc(5); 0 and 0 when
// there is none.
func stateAndSession(stat string) (state byte, sid int) {
	text, err := os.ReadFile(stat)
	if err != nil {
		return 0, 0
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 4 {
		return 0, 0
	}
	sid, _ = strconv.Atoi(string(fields[3]))
	return fields[0][0], sid
}
