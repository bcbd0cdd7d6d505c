package view

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Render returns what a file says to a guest; not ok for a directory and for
// what the guest has not.
func Render(id NodeID, g *Guest) (text []byte, ok bool) {
	if cpu, part, isCPU := ofCPU(id); isCPU {
		return renderTopology(g, cpu, part)
	}
	var b bytes.Buffer
	switch id {
	case nodeCPUInfo:
		renderCPUInfo(&b, g)
	case nodeDiskstats:
		renderDiskstats(&b, g.Disk)
	case nodeLoadavg:
		fmt.Fprintf(&b, "%.2f %.2f %.2f %d/%d %d\n", g.Load.One, g.Load.Five, g.Load.Fifteen, g.Load.Running, g.Load.All, g.Load.All)
	case nodeMeminfo:
		renderMeminfo(&b, g.Memory)
	case nodeStat:
		renderStat(&b, g)
	case nodeSwaps:
		b.WriteString("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
		if m := g.Memory; m.SwapTotal > 0 {
			fmt.Fprintf(&b, "none\t\t\t\t\tvirtual\t\t%d\t\t%d\t\t0\n", m.SwapTotal>>10, m.SwapUsed>>10)
		}
	case nodeUptime:
		fmt.Fprintf(&b, "%s %s\n", seconds(g.Uptime), seconds(g.idle()))
	case nodeOnline, nodePossible, nodePresent, nodeNodeList:
		b.WriteString(g.cpuList() + "\n")
	case nodeOffline, nodeIsolated:
		b.WriteString("\n")
	case nodeKernelMax:
		fmt.Fprintf(&b, "%d\n", max(g.CPUs, 1)-1)
	case nodeNodeOnline, nodeNodeCan, nodeNodeCPU, nodeNodeMemory:
		b.WriteString("0\n")
	case nodeNodeMap:
		b.WriteString(mask(0, max(g.CPUs, 1)) + "\n")
	case nodeNodeInfo:
		renderNode(&b, g.Memory)
	case nodeNodeFar:
		b.WriteString("10\n")
	default:
		return nil, false
	}
	return b.Bytes(), true
}

// seconds with two digits behind the point, cut off as the kernel does.
func seconds(d time.Duration) string {
	t := ticks(max(d, 0))
	return fmt.Sprintf("%d.%02d", t/100, t%100)
}

// renderTopology: one package, each processor a core of its own.
func renderTopology(g *Guest, cpu, part int) ([]byte, bool) {
	if cpu >= g.CPUs {
		return nil, false
	}
	var text string
	switch part {
	case cpuCore:
		text = strconv.Itoa(cpu)
	case cpuPackage:
		text = "0"
	case cpuThread:
		text = mask(cpu, 1)
	case cpuThreads:
		text = strconv.Itoa(cpu)
	case cpuSibling, cpuInPackage:
		text = mask(0, g.CPUs)
	case cpuSiblings, cpuPackages:
		text = g.cpuList()
	default:
		return nil, false
	}
	return []byte(text + "\n"), true
}

// renderCPUInfo shows the first of the host's processors, with the topology of
// renderTopology. What comes behind the last of them is of the whole machine.
func renderCPUInfo(b *bytes.Buffer, g *Guest) {
	blocks := strings.Split(strings.TrimRight(g.CPUInfo, "\n"), "\n\n")
	shown := 0
	for _, block := range blocks {
		first, _, _ := strings.Cut(block, "\n")
		isCPU := key(first) == "processor"
		if isCPU && shown >= g.CPUs {
			continue
		}
		for line := range strings.SplitSeq(block, "\n") {
			value, known := "", isCPU
			switch key(line) {
			case "processor", "core id", "apicid", "initial apicid":
				value = strconv.Itoa(shown)
			case "physical id":
				value = "0"
			case "siblings", "cpu cores":
				value = strconv.Itoa(g.CPUs)
			default:
				known = false
			}
			if name, _, ok := strings.Cut(line, ":"); known && ok {
				line = name + ": " + value
			}
			b.WriteString(line + "\n")
		}
		b.WriteByte('\n')
		if isCPU {
			shown++
		}
	}
}

// key is what stands before the colon.
func key(line string) string {
	name, _, _ := strings.Cut(line, ":")
	return strings.TrimSpace(name)
}

// renderStat shares what was used out equally. Interrupts and the like are the
// host's: 0.
func renderStat(b *bytes.Buffer, g *Guest) {
	cpus := max(g.CPUs, 1)
	line := func(name string, user, system, idle time.Duration) {
		fmt.Fprintf(b, "%s %d 0 %d %d 0 0 0 0 0 0\n", name, ticks(user), ticks(system), ticks(idle))
	}
	n := time.Duration(cpus)
	line("cpu ", g.User, g.System, g.idle())
	for i := range cpus {
		line("cpu"+strconv.Itoa(i), g.User/n, g.System/n, g.idle()/n)
	}
	fmt.Fprintf(b, "intr 0\nctxt 0\nbtime %d\nprocesses %d\nprocs_running %d\nprocs_blocked %d\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
		g.Now.Add(-g.Uptime).Unix(), g.Load.All, g.Load.Running, g.Load.Blocked)
}

// renderDiskstats shows one disk, for what all disks of the host did.
func renderDiskstats(b *bytes.Buffer, d Disk) {
	fmt.Fprintf(b, " 252       0 vda %d 0 %d 0 %d 0 %d 0 0 0 0 0 0 0 0 0 0\n", d.ReadOps, d.ReadBytes>>9, d.WriteOps, d.WriteBytes>>9)
}

// size is one line of meminfo.
type size struct {
	name  string
	bytes int64
}

// renderSizes pads the names as the kernel does.
func renderSizes(b *bytes.Buffer, prefix string, lines []size) {
	for _, one := range lines {
		fmt.Fprintf(b, "%s%-15s %8d kB\n", prefix, one.name+":", one.bytes>>10)
	}
}

// renderMeminfo is /proc/meminfo (fs/proc/meminfo.c).
func renderMeminfo(b *bytes.Buffer, m Memory) {
	renderSizes(b, "", []size{
		{"MemTotal", m.Total},
		{"MemFree", m.Free()},
		{"MemAvailable", m.Available()},
		{"Buffers", 0},
		{"Cached", m.File},
		{"SwapCached", 0},
		{"Active", m.ActiveAnon + m.ActiveFile},
		{"Inactive", m.InactiveAnon + m.InactiveFile},
		{"Active(anon)", m.ActiveAnon},
		{"Inactive(anon)", m.InactiveAnon},
		{"Active(file)", m.ActiveFile},
		{"Inactive(file)", m.InactiveFile},
		{"Unevictable", m.Unevictable},
		{"Mlocked", m.Unevictable},
		{"SwapTotal", m.SwapTotal},
		{"SwapFree", max(m.SwapTotal-m.SwapUsed, 0)},
		{"Dirty", m.Dirty},
		{"Writeback", m.Writeback},
		{"AnonPages", m.Anon},
		{"Mapped", m.Mapped},
		{"Shmem", m.Shmem},
		{"KReclaimable", m.SlabReclaimable},
		{"Slab", m.SlabReclaimable + m.SlabUnreclaimable},
		{"SReclaimable", m.SlabReclaimable},
		{"SUnreclaim", m.SlabUnreclaimable},
		{"KernelStack", m.KernelStack},
		{"PageTables", m.PageTables},
		{"NFS_Unstable", 0},
		{"Bounce", 0},
		{"WritebackTmp", 0},
		{"CommitLimit", m.Total + m.SwapTotal},
		{"Committed_AS", m.Anon + m.Shmem},
		{"VmallocTotal", 0},
		{"VmallocUsed", 0},
		{"VmallocChunk", 0},
		{"AnonHugePages", m.AnonHuge},
	})
	b.WriteString("HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n")
	fmt.Fprintf(b, "%-15s %8d kB\n", "Hugepagesize:", 2048)
}

// renderNode is meminfo of the one node (drivers/base/node.c, node_read_meminfo).
func renderNode(b *bytes.Buffer, m Memory) {
	renderSizes(b, "Node 0 ", []size{
		{"MemTotal", m.Total},
		{"MemFree", m.Free()},
		{"MemUsed", m.Total - m.Free()},
		{"Active", m.ActiveAnon + m.ActiveFile},
		{"Inactive", m.InactiveAnon + m.InactiveFile},
		{"Active(anon)", m.ActiveAnon},
		{"Inactive(anon)", m.InactiveAnon},
		{"Active(file)", m.ActiveFile},
		{"Inactive(file)", m.InactiveFile},
		{"Dirty", m.Dirty},
		{"Writeback", m.Writeback},
		{"FilePages", m.File},
		{"Mapped", m.Mapped},
		{"AnonPages", m.Anon},
		{"Shmem", m.Shmem},
	})
}
