// Package view says what a guest is shown in the place of the host's own
// numbers: the files of /proc and the directories of /sys/devices/system that
// tell of processors, memory, uptime, load, swap and disks.
//
// It is pure: a tree of files (Lookup, List), what they say for a Guest
// (Render), and how the files of control groups become a Guest (Source). Who
// asks, and how the files come into a guest, is told by engine/view/server and
// engine/view/fuse.
//
// Nothing of the host is shown but the kind of its processors, the time of day,
// and its memory to a guest without a limit of its own.
//
// Source of the formats: Linux Documentation/filesystems/proc.rst, proc(5) with
// its parts, Documentation/ABI/stable/sysfs-devices-system-cpu and -node,
// Documentation/admin-guide/iostats.rst; times in /proc/stat are in hundredths
// of a second (USER_HZ) on every architecture that gantry is made for.
package view

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Guest is what a guest is to believe. Numbers that nobody counts are 0.
type Guest struct {
	// CPUs it has, at least 1, and what it has used of them.
	CPUs         int
	User, System time.Duration
	// Uptime since its boot, Now the time of day.
	Uptime time.Duration
	Now    time.Time
	Memory Memory
	Disk   Disk
	Load   Load
	// CPUInfo is the text of /proc/cpuinfo of the host.
	CPUInfo string
}

// Memory in bytes. Total is the limit, Used all that is charged.
type Memory struct {
	Total, Used         int64
	SwapTotal, SwapUsed int64
	// File is page cache with Shmem; the others are parts as in memory.stat.
	File, Shmem, Mapped, Anon             int64
	ActiveAnon, InactiveAnon              int64
	ActiveFile, InactiveFile, Unevictable int64
	Dirty, Writeback                      int64
	SlabReclaimable, SlabUnreclaimable    int64
	KernelStack, PageTables, AnonHuge     int64
}

// Free is what may still be charged.
func (m Memory) Free() int64 { return max(m.Total-m.Used, 0) }

// Available is what may be charged once caches are dropped.
func (m Memory) Available() int64 {
	return min(m.Free()+max(m.ActiveFile+m.InactiveFile+m.SlabReclaimable, 0), m.Total)
}

// Disk is what was read from and written to all disks together.
type Disk struct {
	ReadBytes, WriteBytes, ReadOps, WriteOps int64
}

// Load averages over 1, 5 and 15 minutes, and how many of the tasks run or are
// blocked by a device.
type Load struct {
	One, Five, Fifteen    float64
	Running, Blocked, All int
}

// used is the time that all processors were busy, idle that they were not.
func (g *Guest) used() time.Duration { return g.User + g.System }

func (g *Guest) idle() time.Duration {
	return max(time.Duration(g.CPUs)*g.Uptime-g.used(), 0)
}

func (g *Guest) cpuList() string {
	if g.CPUs <= 1 {
		return "0"
	}
	return "0-" + strconv.Itoa(g.CPUs-1)
}

// mask of the processors from the given one on, in words of 32 bits as the
// kernel prints them.
func mask(first, n int) string {
	words := make([]uint32, (first+n-1)/32+1)
	for i := first; i < first+n; i++ {
		words[i/32] |= 1 << (i % 32)
	}
	var b strings.Builder
	for i := len(words) - 1; i >= 0; i-- {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		if i == len(words)-1 {
			fmt.Fprintf(&b, "%x", words[i])
		} else {
			fmt.Fprintf(&b, "%08x", words[i])
		}
	}
	return b.String()
}

// ticks are hundredths of a second.
func ticks(d time.Duration) int64 { return int64(d / (10 * time.Millisecond)) }
