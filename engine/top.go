package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// ProcessInfo is one process of a container, as the kernel shows it.
type ProcessInfo struct {
	// HostPid is its number on the host, Pid that inside the container and
	// Parent that of its parent inside; 0 when it has none there.
	HostPid, Pid, Parent int
	// UID is its effective user in the container's own ids.
	UID uint32
	// State is the letter of proc(5): R, S, D, T, Z and so on.
	State string
	// CPUTime is user and system time; MemoryBytes is resident memory.
	CPUTime     time.Duration
	MemoryBytes int64
	// Args is the command line as the process shows it, at most 4 KiB. It is
	// the container's text and may hold any bytes.
	Args []string
}

// tick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 for
// programs on every architecture that gantry runs on.
const tick = time.Second / 100

// Top lists the processes of a running container, exec sessions included, by
// their numbers inside. One that ends meanwhile is left out.
func (e *Engine) Top(ctx context.Context, id ContainerID) ([]ProcessInfo, error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	running, base := c.running, c.rec.IDBase
	unlock()
	if !running {
		return nil, fmt.Errorf("processes of container %s: it does not run: %w", id, errdefs.ErrConflict)
	}
	group, err := e.opts.Cgroups.Open(ctx, string(id))
	if err != nil {
		return nil, fmt.Errorf("processes of container %s: %w", id, err)
	}
	pids, err := group.Pids(ctx)
	if err != nil {
		return nil, fmt.Errorf("processes of container %s: %w", id, err)
	}
	var out []ProcessInfo
	inner := map[int]int{} // host's number to the container's
	for _, pid := range pids {
		if p, ok := processInfo(pid, base); ok {
			out = append(out, p)
			inner[pid] = p.Pid
		}
	}
	for i := range out {
		out[i].Parent = inner[out[i].Parent]
	}
	slices.SortFunc(out, func(a, b ProcessInfo) int { return a.Pid - b.Pid })
	return out, nil
}

// processInfo reads what proc(5) shows; Parent is the host's number still.
func processInfo(pid int, base uint32) (ProcessInfo, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	p := ProcessInfo{HostPid: pid}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, false
	}
	p.readStatus(string(status), base)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, false
	}
	p.readStat(stat)
	p.Args = commandLine(dir)
	return p, p.Pid != 0
}

func (p *ProcessInfo) readStatus(text string, base uint32) {
	for line := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch name {
		case "State":
			p.State = fields[0]
		case "PPid":
			p.Parent, _ = strconv.Atoi(fields[0])
		case "Uid": // real, effective, saved, file system
			if uid, err := strconv.ParseUint(fields[min(1, len(fields)-1)], 10, 32); err == nil && uint32(uid) >= base {
				p.UID = uint32(uid) - base
			}
		case "NSpid": // one number for each pid namespace, ours first
			p.Pid, _ = strconv.Atoi(fields[min(1, len(fields)-1)])
		case "VmRSS":
			kib, _ := strconv.ParseInt(fields[0], 10, 64)
			p.MemoryBytes = kib << 10
		}
	}
}

// readStat takes fields 14 and 15 of /proc/PID/stat; the name before them may
// hold anything and ends with the last parenthesis.
func (p *ProcessInfo) readStat(stat []byte) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return
	}
	for _, field := range fields[11:13] {
		n, _ := strconv.ParseInt(string(field), 10, 64)
		p.CPUTime += time.Duration(n) * tick
	}
}

func commandLine(dir string) []string {
	f, err := os.Open(dir + "/cmdline")
	if err != nil {
		return nil
	}
	defer f.Close()
	buf := make([]byte, 4096)
	n, _ := f.Read(buf)
	text := strings.TrimRight(string(buf[:n]), "\x00")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x00")
}
