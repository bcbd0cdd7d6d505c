package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/view"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

const (
	// freshFor is how long numbers are told again instead of being read anew: a
	// guest that reads all the time costs little more than one that reads often.
	freshFor = 20 * time.Millisecond
	// maxGuests bounds what is remembered of guests that have read something.
	maxGuests = 4096
	// hostFor is how long what is known of the host is taken to be so.
	hostFor = time.Minute
)

// guests finds the numbers of guests. Its methods may be called from any goroutine.
type guests struct {
	groups cgroup.Tree // that guests are in

	mu sync.Mutex
	m  map[uint64]*guest // guarded by mu, by their numbers

	hostMu   sync.Mutex
	hostRead time.Time // guarded by hostMu
	host     view.Host // guarded by hostMu
	cpuinfo  string    // guarded by hostMu
}

// guest is one that has read something.
type guest struct {
	source view.Source

	mu   sync.Mutex
	seen map[view.Need]seen // guarded by mu
	load loads              // guarded by mu
}

// seen are numbers and when they were read.
type seen struct {
	at    time.Duration
	guest view.Guest
}

// of returns the guest with a number; errdefs.ErrNotFound for one that has no
// control group.
func (g *guests) of(ctx context.Context, number uint64) (*guest, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if one := g.m[number]; one != nil {
		return one, nil
	}
	// This is a server after another one, or a guest that is new: ids are known by
	// the groups that there are.
	list, err := g.groups.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range list {
		if !isID(id) || numberOf(id) != number {
			continue
		}
		group, err := g.groups.Open(ctx, id)
		if err != nil {
			return nil, err
		}
		paths, err := group.Paths()
		if err != nil {
			return nil, err
		}
		if len(g.m) >= maxGuests { // those that read will be here again
			clear(g.m)
		}
		one := &guest{source: view.NewSource(paths), seen: map[view.Need]seen{}}
		g.m[number] = one
		return one, nil
	}
	return nil, fmt.Errorf("no guest has the number %#x: %w", number, errdefs.ErrNotFound)
}

// forget is for a guest whose group is gone, or was made anew with other parts.
func (g *guests) forget(number uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.m, number)
}

// isID accepts names of control groups that may be a guest's.
func isID(name string) bool {
	if name == "" || len(name) > 128 || name == "status" {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// look returns the numbers of a guest, for a process of it, 0 for any.
func (g *guests) look(ctx context.Context, number uint64, pid int, need view.Need) (view.Guest, error) {
	for try := 0; ; try++ {
		one, err := g.of(ctx, number)
		if err != nil {
			return view.Guest{}, err
		}
		host, cpuinfo, err := g.hostNow()
		if err != nil {
			return view.Guest{}, err
		}
		now, err := bootTime()
		if err != nil {
			return view.Guest{}, err
		}
		uptime := now
		if need&(view.NeedTime|view.NeedLoad) != 0 {
			offset, err := timeOffset(pid)
			if err != nil {
				return view.Guest{}, err
			}
			uptime += offset
		}
		out, err := one.numbers(host, need, now, uptime, pid)
		if err != nil && try == 0 { // of a start before this one
			g.forget(number)
			continue
		}
		out.CPUInfo, out.Now, out.Uptime = cpuinfo, time.Now(), uptime
		return out, err
	}
}

// numbers reads what is not fresh.
func (one *guest) numbers(host view.Host, need view.Need, now, uptime time.Duration, reader int) (view.Guest, error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if known, ok := one.seen[need]; ok && now-known.at < freshFor {
		return known.guest, nil
	}
	var out view.Guest
	read := need
	if need&view.NeedLoad != 0 {
		read |= view.NeedTime // of which it is made
	}
	if err := one.source.Read(&out, host, read); err != nil {
		return out, err
	}
	if need&view.NeedLoad != 0 {
		if now-one.load.counted >= countEvery || now < one.load.counted || one.load.counted == 0 {
			one.load.count, one.load.counted = countTasks(one.source.Tasks(), reader), now
		}
		out.Load = one.load.next(uptime, out.User+out.System)
	}
	one.seen[need] = seen{now, out}
	return out, nil
}

// hostNow is what is known of the host.
func (g *guests) hostNow() (view.Host, string, error) {
	g.hostMu.Lock()
	defer g.hostMu.Unlock()
	if !g.hostRead.IsZero() && time.Since(g.hostRead) < hostFor {
		return g.host, g.cpuinfo, nil
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return view.Host{}, "", err
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return view.Host{}, "", os.NewSyscallError("sched_getaffinity", err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return view.Host{}, "", os.NewSyscallError("sysinfo", err)
	}
	g.host = view.Host{CPUs: set.Count(), MemoryBytes: int64(info.Totalram) * int64(info.Unit)}
	g.cpuinfo, g.hostRead = string(cpuinfo), time.Now()
	return g.host, g.cpuinfo, nil
}

// bootTime is the host's uptime.
func bootTime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(ts.Nano()), nil
}

// timeOffset is what the uptime of a process differs from the host's
// (time_namespaces(7), /proc/PID/timens_offsets).
func timeOffset(pid int) (time.Duration, error) {
	text, err := linux.ReadFile("/proc/" + strconv.Itoa(pid) + "/timens_offsets")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	return parseOffset(text)
}

func parseOffset(text []byte) (time.Duration, error) {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) != 3 || fields[0] != "boottime" {
			continue
		}
		sec, err := strconv.ParseInt(fields[1], 10, 64)
		nsec, err2 := strconv.ParseInt(fields[2], 10, 64)
		const most = 1 << 33 // the range of a Duration
		if err != nil || err2 != nil || sec < -most || sec > most || nsec < 0 || nsec >= 1e9 {
			break
		}
		return time.Duration(sec)*time.Second + time.Duration(nsec), nil
	}
	return 0, fmt.Errorf("time offsets %.128q: %w", text, errdefs.ErrCorrupt)
}
