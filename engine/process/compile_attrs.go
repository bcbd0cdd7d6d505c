package process

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// attrFacts are what the attributes of a process depend on.
type attrFacts struct {
	// bounding is the runner's own set of capabilities: without a user namespace
	// nobody can have more.
	bounding uint64
	// apparmor and selinux: the kernel enforces their profiles.
	apparmor, selinux bool
}

func readAttrFacts() attrFacts {
	f := attrFacts{bounding: ^uint64(0)}
	for n := range 64 {
		// EINVAL (-1): the kernel does not know so many
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err == nil && has == 0 {
			f.bounding &^= 1 << n
		}
	}
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	f.apparmor = err == nil && strings.HasPrefix(string(enabled), "Y")
	_, err = os.Stat("/sys/fs/selinux/enforce")
	f.selinux = err == nil
	return f
}

// wrapErrno gives an errno a class.
func wrapErrno(errno unix.Errno, class error) error { return fmt.Errorf("%w: %w", errno, class) }

// attributes are those that the child sets before it forks, in the runner's
// namespaces and with its rights; the fork inherits them.
func (c *compiler) attributes() {
	c.affinity("set processors of the set-up", c.spec.CPUAffinity)
	c.oomScore()
	if p := c.spec.IOPriority; p != nil {
		const whoProcess, classShift = 1, 13
		c.call("set io priority", unix.SYS_IOPRIO_SET, num(whoProcess), num(0), num(ioClasses[p.Class]<<classShift|p.Priority)).faults(rightFault)
	}
	for _, fd := range c.cgroups {
		c.call("join control group", unix.SYS_WRITE, fd, c.str("0"), num(1))
	}
	if len(c.kept) > 0 {
		return
	}
	for _, fd := range c.cgroups {
		c.close("close control group", fd)
	}
}

// oomScore: the runner may be protected from the out-of-memory killer, but
// instances are not. Raising the value needs no right.
func (c *compiler) oomScore() {
	adj, text := c.slot("oom"), "0"
	if c.spec.OOMScoreAdj != nil {
		text = strconv.Itoa(*c.spec.OOMScoreAdj)
	}
	c.call("open oom_score_adj", unix.SYS_OPENAT, atCwd(), c.str("/proc/self/oom_score_adj"), num(unix.O_WRONLY|unix.O_CLOEXEC)).to(adj)
	s := c.call("write oom_score_adj", unix.SYS_WRITE, adj, c.str(text), num(len(text)))
	if c.spec.OOMScoreAdj == nil {
		s.ignore(unix.EACCES, unix.EPERM)
	} else {
		s.faults(rightFault)
	}
	c.close("close oom_score_adj", adj)
}

// rightFault: what was asked for needs a right that the runner does not have,
// or a value that the kernel does not take.
func rightFault(errno unix.Errno) error {
	switch errno {
	case unix.EPERM, unix.EACCES:
		return wrapErrno(errno, errdefs.ErrForbidden)
	case unix.EINVAL:
		return wrapErrno(errno, errdefs.ErrInvalid)
	}
	return nil
}

func (c *compiler) affinity(name, list string) {
	if list == "" {
		return
	}
	cpus, _ := parseCPUs(list) // validate has seen to it
	mask := make([]byte, (cpus[len(cpus)-1]/64+1)*8)
	for _, n := range cpus {
		mask[n/8] |= 1 << (n % 8)
	}
	c.call(name, unix.SYS_SCHED_SETAFFINITY, num(0), num(len(mask)), c.buf(mask, "{"+list+"}")).faults(rightFault)
}

// sync reports kind and waits until the runner has done its part.
func (c *compiler) sync(name string, kind uint32) {
	msg, _ := c.record(kind, name)
	c.call(name, unix.SYS_WRITE, c.status(), msg, num(recordSize))
	c.call(name, unix.SYS_READ, c.status(), c.buf(make([]byte, 8), "answer"), num(1)).wants(1)
}

// prepared lets the runner set what the child may not: no policy survives the
// fork for sure, and those that matter need the host's rights. Then it notes
// the label, through the runner's own /proc.
func (c *compiler) prepared() {
	if c.spec.Scheduler != nil {
		c.sync("set scheduler", recordPrepared)
	}
	for _, l := range []struct{ what, file, text string }{
		{"set AppArmor profile", "self/attr/apparmor/exec", prefixed("exec ", c.spec.AppArmorProfile)},
		{"set SELinux label", "self/attr/exec", c.spec.SELinuxLabel},
	} {
		if l.text == "" {
			continue
		}
		// No other mount than the one that the runner has opened.
		fd := c.slot("label")
		c.openTo(l.what, fd, c.hostProcFD, l.file, unix.O_WRONLY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS)
		c.call(l.what, unix.SYS_WRITE, fd, c.str(l.text), num(len(l.text))).wants(len(l.text)).faults(labelFault)
		c.close(l.what, fd)
	}
	if c.labelled() {
		c.close("close /proc", c.hostProcFD)
	}
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func (c *compiler) labelled() bool { return c.spec.AppArmorProfile != "" || c.spec.SELinuxLabel != "" }

// labelFault: no such profile or label.
func labelFault(errno unix.Errno) error {
	if errno == unix.ENOENT || errno == unix.EINVAL {
		return wrapErrno(errno, errdefs.ErrInvalid)
	}
	return nil
}

// checkFacts refuses what this host cannot do.
func (c *compiler) checkFacts() error {
	for _, l := range []struct {
		what, text string
		active     bool
	}{{"AppArmor profile", c.spec.AppArmorProfile, c.facts.apparmor}, {"SELinux label", c.spec.SELinuxLabel, c.facts.selinux}} {
		if l.text != "" && !l.active {
			return fmt.Errorf("process spec: %s %q: the kernel runs no such module: %w", l.what, l.text, errdefs.ErrUnsupported)
		}
	}
	return nil
}

// schedAttr is struct sched_attr for sched_setattr(2).
func schedAttr(s *Scheduler) *unix.SchedAttr {
	a := &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: schedPolicies[s.Policy], Nice: s.Nice, Priority: uint32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for _, f := range s.Flags {
		a.Flags |= schedFlags[f]
	}
	return a
}

// parseCPUs reads a list of processors (cpuset(7), List format) and returns
// them in ascending order.
func parseCPUs(list string) ([]int, error) {
	const most = 8192
	var set [most]bool
	bad := func() error { return invalid("list of processors %q", list) }
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, errA := strconv.ParseUint(from, 10, 16)
		b, errB := strconv.ParseUint(to, 10, 16)
		if errA != nil || errB != nil || a > b || b >= most {
			return nil, bad()
		}
		for n := a; n <= b; n++ {
			set[n] = true
		}
	}
	var cpus []int
	for n, has := range set {
		if has {
			cpus = append(cpus, n)
		}
	}
	return cpus, nil
}

// capabilitySets are the five sets of the command.
type capabilitySets struct{ bounding, effective, inheritable, permitted, ambient uint64 }

func (c *compiler) capabilities() capabilitySets {
	keep := capabilitySet(c.spec.Capabilities)
	sets := capabilitySets{bounding: keep, effective: keep, permitted: keep}
	if s := c.spec.Sets; s != nil {
		sets = capabilitySets{
			capabilitySet(s.Bounding), capabilitySet(s.Effective), capabilitySet(s.Inheritable),
			capabilitySet(s.Permitted), capabilitySet(s.Ambient),
		}
	}
	if !c.ownUsers() {
		for _, set := range []*uint64{&sets.bounding, &sets.effective, &sets.inheritable, &sets.permitted, &sets.ambient} {
			*set &= c.facts.bounding
		}
	}
	return sets
}

// String is for golden files: one number for the two sets that mostly agree.
func (s capabilitySets) String() string {
	if s.effective == s.permitted && s.inheritable == 0 {
		return fmt.Sprintf("{%#x}", s.permitted)
	}
	return fmt.Sprintf("{%#x %#x %#x}", s.effective, s.permitted, s.inheritable)
}

// ownUsers: the process lives in another user namespace than the runner.
func (c *compiler) ownUsers() bool {
	if c.target != nil {
		return c.target.flags&unix.CLONE_NEWUSER != 0
	}
	return c.spec.has(UserNamespace)
}

// encode is struct __user_cap_data_struct, twice.
func (s capabilitySets) encode() (b []byte) {
	for _, shift := range []int{0, 32} {
		for _, set := range []uint64{s.effective, s.permitted, s.inheritable} {
			b = binary.LittleEndian.AppendUint32(b, uint32(set>>shift))
		}
	}
	return b
}

// ioClasses is linux/ioprio.h; schedPolicies and schedFlags are linux/sched.h.
var (
	ioClasses     = map[string]int{"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
	schedPolicies = map[string]uint32{
		"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
	}
	schedFlags = map[string]uint64{
		"SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
		"SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10,
		"SCHED_FLAG_UTIL_CLAMP_MIN": 0x20, "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
	}
)
