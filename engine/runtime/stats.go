package runtime

import (
	"time"

	"github.com/gantry-project/gantry/engine/cgroup"
)

// Event is what `events` prints: runc's form, a JSON object for each line.
type Event struct {
	// Type is "stats" or "oom".
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// statsData is the part of runc's types.Stats that the counters fill.
type statsData struct {
	CPU struct {
		Usage struct {
			Total  uint64 `json:"total"`
			Kernel uint64 `json:"kernel"`
			User   uint64 `json:"user"`
		} `json:"usage"`
		Throttling struct {
			Periods          uint64 `json:"periods"`
			ThrottledPeriods uint64 `json:"throttledPeriods"`
			ThrottledTime    uint64 `json:"throttledTime"`
		} `json:"throttling"`
	} `json:"cpu"`
	Memory struct {
		Cache  uint64      `json:"cache"`
		Usage  memoryEntry `json:"usage"`
		Swap   memoryEntry `json:"swap"`
		Kernel memoryEntry `json:"kernel"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current"`
		Limit   uint64 `json:"limit"`
	} `json:"pids"`
	BlockIO struct {
		Bytes []blockEntry `json:"ioServiceBytesRecursive,omitempty"`
		Ops   []blockEntry `json:"ioServicedRecursive,omitempty"`
	} `json:"blkio"`
	HugePages map[string]hugeEntry `json:"hugetlb"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage"`
	Max     uint64 `json:"max"`
	Failcnt uint64 `json:"failcnt"`
}

type blockEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

type hugeEntry struct {
	Usage   uint64 `json:"usage"`
	Failcnt uint64 `json:"failcnt"`
}

// StatsEvent puts counters into runc's form; times are in nanoseconds, and no
// limit is the largest number.
func StatsEvent(id string, s cgroup.Stats) Event {
	number := func(v int64) uint64 { return uint64(max(v, 0)) }
	limit := func(v int64) uint64 {
		if v < 0 {
			return 1<<64 - 1
		}
		return uint64(v)
	}
	nano := func(d time.Duration) uint64 { return number(d.Nanoseconds()) }
	var d statsData
	d.CPU.Usage.Total, d.CPU.Usage.Kernel, d.CPU.Usage.User = nano(s.CPUTime), nano(s.CPUSystem), nano(s.CPUUser)
	d.CPU.Throttling.Periods, d.CPU.Throttling.ThrottledPeriods = number(s.CPUPeriods), number(s.CPUThrottledPeriods)
	d.CPU.Throttling.ThrottledTime = nano(s.CPUThrottled)
	m := s.Memory
	d.Memory.Cache = number(m.File)
	d.Memory.Usage = memoryEntry{Limit: limit(m.Limit), Usage: number(m.Usage), Max: number(m.Peak), Failcnt: number(m.Failures)}
	d.Memory.Swap = memoryEntry{Limit: limit(m.SwapLimit), Usage: number(m.Swap)}
	d.Memory.Kernel = memoryEntry{Limit: limit(-1), Usage: number(m.Kernel)}
	d.Pids.Current, d.Pids.Limit = number(s.Pids), number(s.PidsLimit)
	for _, io := range s.IO {
		entry := func(op string, v int64) blockEntry {
			return blockEntry{Major: number(io.Major), Minor: number(io.Minor), Op: op, Value: number(v)}
		}
		d.BlockIO.Bytes = append(d.BlockIO.Bytes, entry("Read", io.ReadBytes), entry("Write", io.WriteBytes))
		d.BlockIO.Ops = append(d.BlockIO.Ops, entry("Read", io.ReadOps), entry("Write", io.WriteOps))
	}
	d.HugePages = map[string]hugeEntry{}
	for _, h := range s.HugePages {
		d.HugePages[h.PageSize] = hugeEntry{Usage: number(h.Usage), Failcnt: number(h.Failures)}
	}
	return Event{Type: "stats", ID: id, Data: d}
}
