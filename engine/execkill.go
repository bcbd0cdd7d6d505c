package engine

import (
	"bytes"
	"context"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/linux"
)

// killRounds bounds how often killMembers looks again for what was forked while
// it killed.
const killRounds = 16

// killMembers ends the processes of an exec session but the first, which must
// be stopped: it would go on with others. Members may fork until they are
// killed, so it looks until there is none.
func (e *Engine) killMembers(ctx context.Context, s *session) {
	group, err := e.opts.Cgroups.Open(ctx, string(s.container))
	if err != nil {
		return
	}
	for range killRounds {
		if killOnce(ctx, group, s) == 0 {
			return
		}
	}
}

// killOnce kills the members that there are now and counts them. Each is held
// by a pidfd before it is looked at, so that no number is used again meanwhile.
func killOnce(ctx context.Context, group cgroup.Group, s *session) (killed int) {
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
		if sessionOf(pid) == s.process.Pid && linux.PidfdSignal(fd, int(unix.SIGKILL)) == nil {
			killed++
		}
		_ = fd.Close()
	}
	return killed
}

// sessionOf is field 6 of /proc/PID/stat, 0 if unknown or if the process has
// ended.
func sessionOf(pid int) int {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 4 || string(fields[0]) == "Z" || string(fields[0]) == "X" {
		return 0
	}
	sid, _ := strconv.Atoi(string(fields[3]))
	return sid
}
