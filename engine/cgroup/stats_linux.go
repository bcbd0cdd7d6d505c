package cgroup

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Stats implements Watcher.
func (g *group) Stats(ctx context.Context) (Stats, error) {
	if err := ctx.Err(); err != nil {
		return Stats{}, g.wrap("read", err)
	}
	if !g.there() {
		return Stats{}, g.wrap("read", errdefs.ErrNotFound)
	}
	r := &reader{g: g}
	s := Stats{PidsLimit: -1, Memory: MemoryStats{Limit: -1, SwapLimit: -1}}
	r.cpu(&s)
	switch {
	case g.t.v1.Controllers["memory"]:
		r.memoryV1(&s)
	case g.t.v2.Controllers["memory"]:
		r.memoryV2(&s)
	}
	if c, ok := r.home("pids"); ok {
		s.Pids, s.PidsLimit = r.number(c, "pids.current"), r.number(c, "pids.max")
	}
	r.io(&s)
	r.pages(&s)
	if text, ok := r.try("", "cpu.pressure"); ok {
		s.Pressure = &Pressure{CPU: parsePressure(text)}
		text, _ = r.try("", "memory.pressure")
		s.Pressure.Memory = parsePressure(text)
		text, _ = r.try("", "io.pressure")
		s.Pressure.IO = parsePressure(text)
	}
	return s, g.wrap("read", r.err)
}

// clockTick is USER_HZ, which Linux fixes at 100 for user space on amd64 and arm64.
const clockTick = 10 * time.Millisecond

func (r *reader) cpu(s *Stats) {
	if r.g.t.v1.Controllers["cpuacct"] {
		s.CPUTime = time.Duration(r.number("cpuacct", "cpuacct.usage"))
		if text, ok := r.try("cpuacct", "cpuacct.stat"); ok {
			s.CPUUser = time.Duration(flatKey(text, "user")) * clockTick
			s.CPUSystem = time.Duration(flatKey(text, "system")) * clockTick
		}
	} else {
		text := r.text("", "cpu.stat")
		s.CPUTime = time.Duration(flatKey(text, "usage_usec")) * time.Microsecond
		s.CPUUser = time.Duration(flatKey(text, "user_usec")) * time.Microsecond
		s.CPUSystem = time.Duration(flatKey(text, "system_usec")) * time.Microsecond
	}
	c, ok := r.home("cpu")
	if !ok {
		return
	}
	text, _ := r.try(c, "cpu.stat")
	s.CPUPeriods, s.CPUThrottledPeriods = flatKey(text, "nr_periods"), flatKey(text, "nr_throttled")
	s.CPUThrottled = time.Duration(flatKey(text, "throttled_time")) + time.Duration(flatKey(text, "throttled_usec"))*time.Microsecond
}

func (r *reader) memoryV1(s *Stats) {
	const c = "memory"
	m := &s.Memory
	stat := r.text(c, "memory.stat")
	m.Usage = r.number(c, "memory.usage_in_bytes")
	m.Peak = r.number(c, "memory.max_usage_in_bytes")
	m.Limit = r.number(c, "memory.limit_in_bytes")
	if text, ok := r.try(c, fileMemsw); ok {
		if both := number(text); both >= 0 && m.Limit >= 0 {
			m.SwapLimit = both - m.Limit
		}
	}
	if text, ok := r.try(c, "memory.kmem.usage_in_bytes"); ok {
		m.Kernel = max(number(text), 0)
	}
	m.Swap, m.Anon, m.File = flatKey(stat, "total_swap"), flatKey(stat, "total_rss"), flatKey(stat, "total_cache")
	m.Failures = r.number(c, "memory.failcnt")
	s.MemoryBytes = max(m.Usage-flatKey(stat, "total_inactive_file"), 0)
	n, _ := r.g.t.with(c)
	kills, err := oomKillsV1(r.g.dir(n))
	r.note(err)
	m.OOMKills = kills
}

func (r *reader) memoryV2(s *Stats) {
	m := &s.Memory
	stat, events := r.text("", "memory.stat"), r.text("", "memory.events")
	m.Usage = r.number("", "memory.current")
	m.Limit = r.number("", "memory.max")
	if text, ok := r.try("", "memory.peak"); ok {
		m.Peak = max(number(text), 0)
	}
	if text, ok := r.try("", "memory.swap.current"); ok {
		m.Swap = max(number(text), 0)
		text, _ = r.try("", "memory.swap.max")
		m.SwapLimit = number(text)
	}
	m.Anon, m.File, m.Kernel = flatKey(stat, "anon"), flatKey(stat, "file"), flatKey(stat, "kernel")
	m.Failures, m.OOMKills = flatKey(events, "max"), flatKey(events, "oom_kill")
	s.MemoryBytes = max(m.Usage-flatKey(stat, "inactive_file"), 0)
}

func (r *reader) io(s *Stats) {
	if !r.g.t.v1.Controllers["blkio"] {
		if text, ok := r.try("", "io.stat"); ok {
			s.IO = parseIOStat(text)
		}
		return
	}
	text, _ := r.try("blkio", "blkio.throttle.io_service_bytes_recursive")
	s.IO = parseThrottleIO(text, func(d *DeviceIO, op string, n int64) {
		switch op {
		case "Read":
			d.ReadBytes = n
		case "Write":
			d.WriteBytes = n
		}
	}, nil)
	text, _ = r.try("blkio", "blkio.throttle.io_serviced_recursive")
	s.IO = parseThrottleIO(text, func(d *DeviceIO, op string, n int64) {
		switch op {
		case "Read":
			d.ReadOps = n
		case "Write":
			d.WriteOps = n
		}
	}, s.IO)
}

func (r *reader) pages(s *Stats) {
	for _, size := range r.g.t.v1.pages() {
		h := HugePageStats{PageSize: size}
		text, ok := r.try("hugetlb", "hugetlb."+size+".usage_in_bytes")
		if !ok {
			continue
		}
		h.Usage = number(text)
		text, _ = r.try("hugetlb", "hugetlb."+size+".limit_in_bytes")
		h.Limit = number(text)
		text, _ = r.try("hugetlb", "hugetlb."+size+".failcnt")
		h.Failures = max(number(text), 0)
		s.HugePages = append(s.HugePages, h)
	}
	for _, size := range r.g.t.v2.pages() {
		h := HugePageStats{PageSize: size}
		text, ok := r.try("", "hugetlb."+size+".current")
		if !ok {
			continue
		}
		h.Usage = number(text)
		text, _ = r.try("", "hugetlb."+size+".max")
		h.Limit = number(text)
		text, _ = r.try("", "hugetlb."+size+".events")
		h.Failures = flatKey(text, "max")
		s.HugePages = append(s.HugePages, h)
	}
}

// OOMKills implements Watcher. On v1 a group counts only its own processes, so
// the sub-groups are added.
func (g *group) OOMKills(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, g.wrap("read", err)
	}
	if !g.there() {
		return 0, g.wrap("read", errdefs.ErrNotFound)
	}
	kills, err := g.oomKills()
	return kills, g.wrap("read", err)
}

func (g *group) oomKills() (int64, error) {
	if n, ok := g.t.with("memory"); ok {
		return oomKillsV1(g.dir(n))
	}
	if !g.t.v2.Controllers["memory"] {
		return 0, unsupported(LimitMemory, "no memory controller")
	}
	r := &reader{g: g}
	kills := flatKey(r.text("", "memory.events"), "oom_kill")
	return kills, r.err
}

func oomKillsV1(dir string) (int64, error) {
	s, err := readFile(dir, "memory.oom_control")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	sum := flatKey(s, "oom_kill")
	subs, err := subgroups(dir)
	for _, sub := range subs {
		n, err := oomKillsV1(sub)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, err
}

// reader reads files of a group and keeps the first error.
type reader struct {
	g   *group
	err error
}

func (r *reader) note(err error) {
	if r.err == nil {
		r.err = err
	}
}

// home says where a controller is: its own name for v1, "" for v2.
func (r *reader) home(controller string) (string, bool) {
	if r.g.t.v1.Controllers[controller] {
		return controller, true
	}
	return "", r.g.t.v2.Controllers[controller]
}

// read reads a file of the v1 hierarchy with the controller, or of v2 if "".
func (r *reader) read(controller, file string) (string, error) {
	n, ok := r.g.t.unified()
	if controller != "" {
		n, ok = r.g.t.with(controller)
	}
	if !ok {
		return "", os.ErrNotExist
	}
	return readFile(r.g.dir(n), file)
}

// try is for what not every kernel has.
func (r *reader) try(controller, file string) (string, bool) {
	s, err := r.read(controller, file)
	return s, err == nil
}

// text is for what has to be there.
func (r *reader) text(controller, file string) string {
	s, err := r.read(controller, file)
	if !errors.Is(err, os.ErrNotExist) || controller != "" {
		r.note(err)
	} else if _, ok := r.g.t.unified(); ok {
		r.note(err)
	}
	return s
}

// number is a number that has to be there; "max" and the like are -1.
func (r *reader) number(controller, file string) int64 { return number(r.text(controller, file)) }
