package engine

import (
	"bytes"
	"context"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/linux"
)

// killMembers ends the processes of an exec session but the first, if they can
// still be told by their session. Each is held by a pidfd before it is looked
// at, so that no number is used again meanwhile.
func (e *Engine) killMembers(ctx context.Context, s *session) {
	group, err := e.opts.Cgroups.Open(ctx, string(s.container))
	if err != nil {
		return
	}
	pids, err := group.Pids(ctx)
	if err != nil {
		return
	}
	for _, pid := range pids {
		if pid == s.process.Pid {
			continue
		}
		fd, err := linux.PidfdOpen(pid)
		if err != nil {
			continue
		}
		if sessionOf(pid) == s.process.Pid {
			_ = linux.PidfdSignal(fd, int(unix.SIGKILL))
		}
		_ = fd.Close()
	}
}

// sessionOf is field 6 of /proc/PID/stat, 0 if unknown.
func sessionOf(pid int) int {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 4 {
		return 0
	}
	sid, _ := strconv.Atoi(string(fields[3]))
	return sid
}
