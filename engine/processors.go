package engine

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
)

// processors shares the host's out among containers.
type processors struct {
	all []int // those that the engine itself may use, sorted

	mu sync.Mutex
	of map[ContainerID][]int // guarded by mu: of containers that have not all
}

// look asks which there are, before all else.
func (p *processors) look() {
	var set unix.CPUSet
	p.of = map[ContainerID][]int{}
	if unix.SchedGetaffinity(0, &set) == nil {
		p.all = members(&set)
	}
}

// take returns the list of those that a container with the limits gets, "" for
// all. It keeps those that it has had.
func (p *processors) take(id ContainerID, l cgroup.Limits) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	allowed := p.all
	if l.CPUSet != "" {
		set := parseList(l.CPUSet)
		allowed = slices.DeleteFunc(slices.Clone(p.all), func(n int) bool { return !slices.Contains(set, n) })
	}
	n := len(allowed)
	if l.CPUQuota > 0 && l.CPUPeriod > 0 {
		n = int(min(int64(n), (l.CPUQuota+l.CPUPeriod-1)/l.CPUPeriod))
	}
	had := p.of[id]
	delete(p.of, id)
	if n == 0 || n == len(p.all) {
		return ""
	}
	p.of[id] = p.choose(allowed, had, n)
	return textOf(p.of[id])
}

// list returns what take has returned last.
func (p *processors) list(id ContainerID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return textOf(p.of[id])
}

func textOf(cpus []int) string {
	words := make([]string, len(cpus))
	for i, cpu := range cpus {
		words[i] = strconv.Itoa(cpu)
	}
	return strings.Join(words, ",")
}

// choose takes n, first those that were had and then those that the fewest have.
func (p *processors) choose(allowed, had []int, n int) []int {
	users := map[int]int{}
	for _, list := range p.of {
		for _, cpu := range list {
			users[cpu]++
		}
	}
	order := slices.Clone(allowed)
	slices.SortStableFunc(order, func(a, b int) int {
		first, second := slices.Contains(had, a), slices.Contains(had, b)
		if first != second {
			if first {
				return -1
			}
			return 1
		}
		return cmp.Compare(users[a], users[b])
	})
	chosen := order[:n]
	slices.Sort(chosen)
	return chosen
}

// adopt notes what a container has.
func (p *processors) adopt(id ContainerID, set *unix.CPUSet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if list := members(set); len(list) < len(p.all) {
		p.of[id] = list
	}
}

// drop is for a container that has ended.
func (p *processors) drop(id ContainerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, id)
}

// set is a list of take's.
func (p *processors) set(list string) unix.CPUSet {
	var set unix.CPUSet
	cpus := p.all
	if list != "" {
		cpus = parseList(list)
	}
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	return set
}

func members(set *unix.CPUSet) (list []int) {
	for cpu, left := 0, set.Count(); left > 0; cpu++ {
		if set.IsSet(cpu) {
			list, left = append(list, cpu), left-1
		}
	}
	return list
}

// parseList reads a list of processors, which was checked (cgroup.Limits.Validate).
func parseList(text string) (list []int) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		from, err := strconv.Atoi(first)
		to := from
		if isRange && err == nil {
			to, err = strconv.Atoi(last)
		}
		const most = 1 << 13 // NR_CPUS
		for cpu := from; err == nil && cpu <= min(to, most); cpu++ {
			list = append(list, cpu)
		}
	}
	return list
}

// setAffinity is for one thread; one that has ended, or that the kernel keeps
// where it is, is no error.
func setAffinity(task string, set *unix.CPUSet) error {
	tid, err := strconv.Atoi(task)
	if err != nil {
		return err
	}
	err = unix.SchedSetaffinity(tid, set)
	if err == nil || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return os.NewSyscallError("sched_setaffinity", err)
}
