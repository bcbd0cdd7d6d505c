package view

import (
	"strconv"
	"strings"
)

// Numbers of nodes in the tree of a guest. They are the same in all versions that
// may follow one another on a mount: a kernel remembers them.
const (
	Root NodeID = 1

	nodeCPUInfo    NodeID = 2
	nodeDiskstats  NodeID = 3
	nodeLoadavg    NodeID = 4
	nodeMeminfo    NodeID = 5
	nodeStat       NodeID = 6
	nodeSwaps      NodeID = 7
	nodeUptime     NodeID = 8
	nodeCPU        NodeID = 16
	nodeOnline     NodeID = 17
	nodePossible   NodeID = 18
	nodePresent    NodeID = 19
	nodeOffline    NodeID = 20
	nodeIsolated   NodeID = 21
	nodeKernelMax  NodeID = 22
	nodeNodes      NodeID = 32
	nodeNodeOnline NodeID = 33
	nodeNodeCan    NodeID = 34
	nodeNodeCPU    NodeID = 35
	nodeNodeMemory NodeID = 36
	nodeNode0      NodeID = 40
	nodeNodeList   NodeID = 41
	nodeNodeMap    NodeID = 42
	nodeNodeInfo   NodeID = 43
	nodeNodeFar    NodeID = 44

	// processor n has the numbers from firstCPU+n*perCPU on
	firstCPU     NodeID = 1 << 10
	perCPU       NodeID = 16
	cpuTopology         = 1
	cpuCore             = 2
	cpuPackage          = 3
	cpuThread           = 4
	cpuThreads          = 5
	cpuSibling          = 6
	cpuSiblings         = 7
	cpuInPackage        = 8
	cpuPackages         = 9
)

// maxCPUs is what a kernel can be made for.
const maxCPUs = 1 << 13

// NodeBits are those of the largest NodeID.
const NodeBits = 20

// NodeID is a file or directory of the tree.
type NodeID uint64

// Node is an entry of a directory.
type Node struct {
	ID   NodeID
	Name string
	Dir  bool
	// May says that a guest with fewer processors has it not.
	May bool
}

// procFiles are the names below Root that stand in for the file of the same
// name in /proc, systemDirs those for directories of /sys/devices/system.
var (
	procFiles  = [...]string{"cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime"}
	systemDirs = [...]string{"cpu", "node"}
)

// A Place is where something of the tree belongs in a guest.
type Place struct {
	// Name in the root of the tree, Path in the guest.
	Name, Path string
	Dir        bool
}

// Places are what a guest is shown of the tree.
func Places() []Place {
	var list []Place
	for _, name := range procFiles {
		list = append(list, Place{Name: name, Path: "/proc/" + name})
	}
	for _, name := range systemDirs {
		list = append(list, Place{Name: name, Path: "/sys/devices/system/" + name, Dir: true})
	}
	return list
}

// fixed are the directories that are the same for all.
var fixed = map[NodeID][]Node{
	Root: {
		{ID: nodeCPUInfo, Name: "cpuinfo"},
		{ID: nodeDiskstats, Name: "diskstats"},
		{ID: nodeLoadavg, Name: "loadavg"},
		{ID: nodeMeminfo, Name: "meminfo"},
		{ID: nodeStat, Name: "stat"},
		{ID: nodeSwaps, Name: "swaps"},
		{ID: nodeUptime, Name: "uptime"},
		{ID: nodeCPU, Name: "cpu", Dir: true},
		{ID: nodeNodes, Name: "node", Dir: true},
	},
	nodeCPU: {
		{ID: nodeOnline, Name: "online"},
		{ID: nodePossible, Name: "possible"},
		{ID: nodePresent, Name: "present"},
		{ID: nodeOffline, Name: "offline"},
		{ID: nodeIsolated, Name: "isolated"},
		{ID: nodeKernelMax, Name: "kernel_max"},
	},
	nodeNodes: {
		{ID: nodeNodeOnline, Name: "online"},
		{ID: nodeNodeCan, Name: "possible"},
		{ID: nodeNodeCPU, Name: "has_cpu"},
		{ID: nodeNodeMemory, Name: "has_memory"},
		{ID: nodeNode0, Name: "node0", Dir: true},
	},
	nodeNode0: {
		{ID: nodeNodeList, Name: "cpulist"},
		{ID: nodeNodeMap, Name: "cpumap"},
		{ID: nodeNodeInfo, Name: "meminfo"},
		{ID: nodeNodeFar, Name: "distance"},
	},
}

// topology are the files of a processor's directory topology.
var topology = [...]string{
	cpuCore: "core_id", cpuPackage: "physical_package_id", cpuThread: "thread_siblings", cpuThreads: "thread_siblings_list",
	cpuSibling: "core_siblings", cpuSiblings: "core_siblings_list", cpuInPackage: "package_cpus", cpuPackages: "package_cpus_list",
}

// ofCPU splits the number of a node that belongs to a processor.
func ofCPU(id NodeID) (cpu, part int, ok bool) {
	if id < firstCPU || id >= firstCPU+maxCPUs*perCPU {
		return 0, 0, false
	}
	id -= firstCPU
	return int(id / perCPU), int(id % perCPU), true
}

// Stat returns a node by its number, whether a guest has it or not.
func Stat(id NodeID) (Node, bool) {
	if id == Root {
		return Node{ID: Root, Dir: true}, true
	}
	if cpu, part, ok := ofCPU(id); ok {
		switch {
		case part == 0:
			return Node{ID: id, Name: "cpu" + strconv.Itoa(cpu), Dir: true, May: true}, true
		case part == cpuTopology:
			return Node{ID: id, Name: "topology", Dir: true, May: true}, true
		case part < len(topology):
			return Node{ID: id, Name: topology[part], May: true}, true
		}
		return Node{}, false
	}
	for _, list := range fixed {
		for _, n := range list {
			if n.ID == id {
				return n, true
			}
		}
	}
	return Node{}, false
}

// Lookup finds a name in a directory as a guest with so many processors has it.
func Lookup(dir NodeID, name string, cpus int) (Node, bool) {
	for _, n := range fixed[dir] {
		if n.Name == name {
			return n, true
		}
	}
	if dir == nodeCPU {
		text, isCPU := strings.CutPrefix(name, "cpu")
		cpu, err := strconv.Atoi(text)
		if !isCPU || err != nil || cpu < 0 || cpu >= min(cpus, maxCPUs) || strconv.Itoa(cpu) != text {
			return Node{}, false
		}
		return Stat(firstCPU + NodeID(cpu)*perCPU)
	}
	for _, n := range List(dir, cpus) {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// List returns the entries of a directory, always in the same order, nil for
// what is none or what a guest with so many processors has not.
func List(dir NodeID, cpus int) []Node {
	cpus = min(cpus, maxCPUs)
	if cpu, part, ok := ofCPU(dir); ok {
		if cpu >= cpus || part > cpuTopology {
			return nil
		}
		if part == 0 {
			n, _ := Stat(dir + cpuTopology)
			return []Node{n}
		}
		var list []Node
		for part := cpuCore; part < len(topology); part++ {
			n, _ := Stat(dir - cpuTopology + NodeID(part))
			list = append(list, n)
		}
		return list
	}
	list := append([]Node{}, fixed[dir]...)
	if dir == nodeCPU {
		for cpu := range cpus {
			n, _ := Stat(firstCPU + NodeID(cpu)*perCPU)
			list = append(list, n)
		}
	}
	return list
}
