package view

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Need is a part of a Guest that has to be looked up.
type Need uint8

// The parts. How many processors there are is always told.
const (
	NeedMemory Need = 1 << iota
	NeedTime
	NeedDisk
	NeedLoad
)

// Needs returns what Render of a file looks at.
func Needs(id NodeID) Need {
	switch id {
	case nodeMeminfo, nodeSwaps, nodeNodeInfo:
		return NeedMemory
	case nodeStat:
		return NeedTime | NeedLoad
	case nodeUptime:
		return NeedTime
	case nodeLoadavg:
		return NeedLoad
	case nodeDiskstats:
		return NeedDisk
	}
	return 0
}

// Host is what a guest without limits of its own has.
type Host struct {
	CPUs        int
	MemoryBytes int64
}

// Source is where the numbers of a guest are: directories of its control group
// by controller, "" for one that it has no part in. Methods may be called from
// any goroutine.
type Source struct {
	cpu, cpuacct, cpuset, memory, blkio string
	v2                                  string
}

// NewSource finds the controllers among the places of a group (cgroup.Joiner).
func NewSource(paths []cgroup.Path) Source {
	var s Source
	for _, p := range paths {
		if p.V2() {
			s.v2 = p.Dir
			continue
		}
		if p.Dir == p.Mount { // the root's numbers are the host's
			continue
		}
		for _, c := range p.Controllers {
			switch c {
			case "cpu":
				s.cpu = p.Dir
			case "cpuacct":
				s.cpuacct = p.Dir
			case "cpuset":
				s.cpuset = p.Dir
			case "memory":
				s.memory = p.Dir
			case "blkio":
				s.blkio = p.Dir
			}
		}
	}
	return s
}

// Tasks is the directory whose tasks are the guest's, sub-groups apart.
func (s Source) Tasks() string {
	if s.v2 != "" {
		return s.v2
	}
	return s.memory
}

// Read fills the parts of g that are in control groups: CPUs always, the needed
// of Memory, User, System and Disk. A group that is gone is errdefs.ErrNotFound;
// then g is not to be shown.
func (s Source) Read(g *Guest, host Host, need Need) error {
	r := &files{}
	s.readCPUs(r, g, host)
	if need&NeedMemory != 0 {
		s.readMemory(r, g, host)
	}
	if need&NeedTime != 0 {
		s.readTime(r, g)
	}
	if need&NeedDisk != 0 {
		s.readDisk(r, g)
	}
	return r.err
}

// readCPUs counts the processors that the guest can use at once: a part of one is one.
func (s Source) readCPUs(r *files, g *Guest, host Host) {
	g.CPUs = host.CPUs
	var quota, period int64
	if s.cpu != "" {
		quota, period = number(r.must(s.cpu, "cpu.cfs_quota_us")), number(r.must(s.cpu, "cpu.cfs_period_us"))
	} else {
		text, _ := r.try(s.v2, "cpu.max")
		first, second, _ := strings.Cut(text, " ")
		quota, period = number(first), number(second)
	}
	if quota > 0 && period > 0 {
		g.CPUs = int(min(int64(g.CPUs), (quota+period-1)/period))
	}
	var list string
	if s.cpuset != "" {
		list, _ = r.try(s.cpuset, "cpuset.effective_cpus")
	} else {
		list, _ = r.try(s.v2, "cpuset.cpus.effective")
	}
	if n := countList(list); n > 0 {
		g.CPUs = min(g.CPUs, n)
	}
	g.CPUs = max(g.CPUs, 1)
}

func (s Source) readMemory(r *files, g *Guest, host Host) {
	m := &g.Memory
	limit := func(n int64) int64 {
		if n < 0 || n > math.MaxInt64/2 { // none: v1 says the largest that it can
			return host.MemoryBytes
		}
		return n
	}
	if s.memory == "" {
		m.Total, m.Used = limit(number(r.must(s.v2, "memory.max"))), max(number(r.must(s.v2, "memory.current")), 0)
		if swap, ok := r.try(s.v2, "memory.swap.max"); ok {
			m.SwapTotal = max(number(swap), 0)
			used, _ := r.try(s.v2, "memory.swap.current")
			m.SwapUsed = min(max(number(used), 0), m.SwapTotal)
		}
		m.setParts(flat(r.must(s.v2, "memory.stat")), "")
		return
	}
	hard := number(r.must(s.memory, "memory.limit_in_bytes"))
	m.Total, m.Used = limit(hard), max(number(r.must(s.memory, "memory.usage_in_bytes")), 0)
	stat := flat(r.must(s.memory, "memory.stat"))
	if both, ok := r.try(s.memory, "memory.memsw.limit_in_bytes"); ok {
		if n := number(both); n >= 0 && n < math.MaxInt64/2 && hard < math.MaxInt64/2 {
			m.SwapTotal = max(n-hard, 0)
			m.SwapUsed = min(max(stat["total_swap"], 0), m.SwapTotal)
		}
	}
	m.setParts(stat, "total_")
}

// setParts takes them from memory.stat; the names of v1 count sub-groups with a
// prefix, and some differ.
func (m *Memory) setParts(stat map[string]int64, prefix string) {
	get := func(names ...string) int64 {
		for _, name := range names {
			if n, ok := stat[prefix+name]; ok {
				return n
			}
		}
		return 0
	}
	m.File, m.Shmem, m.Mapped, m.Anon = get("file", "cache"), get("shmem"), get("file_mapped", "mapped_file"), get("anon", "rss")
	m.ActiveAnon, m.InactiveAnon = get("active_anon"), get("inactive_anon")
	m.ActiveFile, m.InactiveFile, m.Unevictable = get("active_file"), get("inactive_file"), get("unevictable")
	m.Dirty, m.Writeback = get("file_dirty", "dirty"), get("file_writeback", "writeback")
	m.SlabReclaimable, m.SlabUnreclaimable = get("slab_reclaimable"), get("slab_unreclaimable")
	m.KernelStack, m.PageTables, m.AnonHuge = get("kernel_stack"), get("pagetables"), get("anon_thp", "rss_huge")
}

func (s Source) readTime(r *files, g *Guest) {
	if s.cpuacct != "" {
		g.User = time.Duration(number(r.must(s.cpuacct, "cpuacct.usage_user")))
		g.System = time.Duration(number(r.must(s.cpuacct, "cpuacct.usage_sys")))
		return
	}
	stat := flat(r.must(s.v2, "cpu.stat"))
	g.User, g.System = time.Duration(stat["user_usec"])*time.Microsecond, time.Duration(stat["system_usec"])*time.Microsecond
}

func (s Source) readDisk(r *files, g *Guest) {
	d := &g.Disk
	if s.blkio == "" {
		text, _ := r.try(s.v2, "io.stat")
		*d = sumIOStat(text)
		return
	}
	text, _ := r.try(s.blkio, "blkio.throttle.io_service_bytes_recursive")
	d.ReadBytes, d.WriteBytes = sumThrottle(text)
	text, _ = r.try(s.blkio, "blkio.throttle.io_serviced_recursive")
	d.ReadOps, d.WriteOps = sumThrottle(text)
}

// sumIOStat reads io.stat of v2: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …".
func sumIOStat(text string) (d Disk) {
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		n := max(number(value), 0)
		switch name {
		case "rbytes":
			d.ReadBytes += n
		case "wbytes":
			d.WriteBytes += n
		case "rios":
			d.ReadOps += n
		case "wios":
			d.WriteOps += n
		}
	}
	return d
}

// sumThrottle reads lines "8:0 Read 1" of v1.
func sumThrottle(text string) (read, write int64) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 3 {
			continue
		}
		switch n := max(number(words[2]), 0); words[1] {
		case "Read":
			read += n
		case "Write":
			write += n
		}
	}
	return read, write
}

// flat reads lines "name number".
func flat(text string) map[string]int64 {
	m := make(map[string]int64, 64)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			m[name] = n
		}
	}
	return m
}

// number is one that is not negative, or -1 for any other text, "max" say.
func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// countList counts the members of a list like "0-3,7"; 0 for what is none.
func countList(text string) int {
	n := 0
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from := number(first)
		to := from
		if isRange {
			to = number(last)
		}
		if from < 0 || to < from || to >= maxCPUs {
			return 0
		}
		n += int(to - from + 1)
	}
	return n
}

// files reads files of control groups and keeps the first error.
type files struct{ err error }

// must is for a file that has to be there.
func (r *files) must(dir, name string) string {
	text, err := readFile(dir, name)
	if err != nil && r.err == nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
		}
		r.err = fmt.Errorf("read the numbers of a guest: %w", err)
	}
	return text
}

// try is for what not every kernel has.
func (r *files) try(dir, name string) (string, bool) {
	text, err := readFile(dir, name)
	return text, err == nil
}

func readFile(dir, name string) (string, error) {
	if dir == "" {
		return "", &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
	b, err := linux.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b)), err
}
