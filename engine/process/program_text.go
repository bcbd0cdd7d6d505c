package process

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// String renders the program, one call on a line, for reading and for golden
// tests. Neighbouring calls of one name that differ in one number are one
// line. It shows no file contents.
func (p *Program) String() string {
	var out strings.Builder
	for i := 0; i < len(p.steps); {
		n, arg := p.alike(i)
		var numbers []uint64
		for k := i; k < i+n && n > 1; k++ {
			numbers = append(numbers, p.steps[k].args[arg].num)
		}
		p.line(&out, i, arg, numbers)
		i += n
	}
	return out.String()
}

// alike counts the steps from i on that differ in one numeric argument only.
func (p *Program) alike(i int) (count, arg int) {
	arg = -1
	for k := i + 1; k < len(p.steps); k++ {
		a, b := &p.steps[i], &p.steps[k]
		if a.nr != b.nr || a.name != b.name || len(a.args) != len(b.args) || a.skipIgnored|b.skipIgnored|a.skipZero|b.skipZero != 0 {
			return k - i, arg
		}
		differs := -1
		for x := range a.args {
			if a.args[x] == b.args[x] {
				continue
			}
			if differs >= 0 || a.args[x].kind != kindNumber || b.args[x].kind != kindNumber {
				return k - i, arg
			}
			differs = x
		}
		if differs < 0 || (arg >= 0 && arg != differs) {
			return k - i, arg
		}
		arg = differs
	}
	return len(p.steps) - i, arg
}

func (p *Program) line(out *strings.Builder, i, listArg int, numbers []uint64) {
	s := &p.steps[i]
	fmt.Fprintf(out, "%3d %s: ", i, s.name)
	if s.out >= 0 {
		fmt.Fprintf(out, "%s = ", p.slots[s.out])
	}
	out.WriteString(callName(s.nr))
	out.WriteByte('(')
	for k, a := range s.args {
		if k > 0 {
			out.WriteString(", ")
		}
		switch {
		case k == listArg && len(numbers) > 1:
			out.WriteString("{" + ranges(numbers) + "}")
		case a.quoted:
			fmt.Fprintf(out, "%q", a.text)
		case a.text != "":
			out.WriteString(a.text)
		case a.num > 255:
			fmt.Fprintf(out, "%#x", a.num)
		default:
			fmt.Fprintf(out, "%d", a.num)
		}
	}
	out.WriteByte(')')
	if s.want != anyResult {
		fmt.Fprintf(out, " want %d", s.want)
	}
	if len(s.ignored) > 0 {
		names := make([]string, len(s.ignored))
		for k, e := range s.ignored {
			names[k] = unix.ErrnoName(e)
		}
		fmt.Fprintf(out, " or %s", strings.Join(names, " "))
		if s.skipIgnored != 0 {
			fmt.Fprintf(out, " -> %d", i+1+s.skipIgnored)
		}
	}
	if s.skipZero != 0 {
		fmt.Fprintf(out, " if 0 -> %d", i+1+s.skipZero)
	}
	out.WriteByte('\n')
}

// ranges writes ascending numbers as 1-8 10 12-64.
func ranges(numbers []uint64) string {
	slices.Sort(numbers)
	var parts []string
	for i := 0; i < len(numbers); {
		k := i
		for k+1 < len(numbers) && numbers[k+1] == numbers[k]+1 {
			k++
		}
		if k == i {
			parts = append(parts, fmt.Sprint(numbers[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", numbers[i], numbers[k]))
		}
		i = k + 1
	}
	return strings.Join(parts, " ")
}

// callName names the calls that compile uses.
func callName(nr uintptr) string {
	switch nr {
	case nrFail:
		return "fail"
	case unix.SYS_ACCEPT4:
		return "accept4"
	case unix.SYS_CAPSET:
		return "capset"
	case unix.SYS_CHDIR:
		return "chdir"
	case unix.SYS_CHROOT:
		return "chroot"
	case unix.SYS_CLONE:
		return "clone"
	case unix.SYS_CLOSE:
		return "close"
	case unix.SYS_CLOSE_RANGE:
		return "close_range"
	case unix.SYS_DUP3:
		return "dup3"
	case unix.SYS_EXECVE:
		return "execve"
	case unix.SYS_EXIT_GROUP:
		return "exit_group"
	case unix.SYS_FCHDIR:
		return "fchdir"
	case unix.SYS_FCHMOD:
		return "fchmod"
	case unix.SYS_FCHMODAT:
		return "fchmodat"
	case unix.SYS_FCHOWN:
		return "fchown"
	case unix.SYS_FCHOWNAT:
		return "fchownat"
	case unix.SYS_FCNTL:
		return "fcntl"
	case unix.SYS_FSCONFIG:
		return "fsconfig"
	case unix.SYS_FSMOUNT:
		return "fsmount"
	case unix.SYS_FSOPEN:
		return "fsopen"
	case unix.SYS_FSTAT:
		return "fstat"
	case unix.SYS_IOCTL:
		return "ioctl"
	case unix.SYS_IOPRIO_SET:
		return "ioprio_set"
	case unix.SYS_KEYCTL:
		return "keyctl"
	case unix.SYS_MKDIRAT:
		return "mkdirat"
	case unix.SYS_MKNODAT:
		return "mknodat"
	case unix.SYS_MOUNT:
		return "mount"
	case unix.SYS_MOUNT_SETATTR:
		return "mount_setattr"
	case unix.SYS_MOVE_MOUNT:
		return "move_mount"
	case unix.SYS_OPENAT:
		return "openat"
	case unix.SYS_OPENAT2:
		return "openat2"
	case unix.SYS_OPEN_TREE:
		return "open_tree"
	case unix.SYS_PERSONALITY:
		return "personality"
	case unix.SYS_PIVOT_ROOT:
		return "pivot_root"
	case unix.SYS_PRCTL:
		return "prctl"
	case unix.SYS_PRLIMIT64:
		return "prlimit64"
	case unix.SYS_READ:
		return "read"
	case unix.SYS_RT_SIGACTION:
		return "rt_sigaction"
	case unix.SYS_RT_SIGPROCMASK:
		return "rt_sigprocmask"
	case unix.SYS_SCHED_SETAFFINITY:
		return "sched_setaffinity"
	case unix.SYS_SECCOMP:
		return "seccomp"
	case unix.SYS_SENDMSG:
		return "sendmsg"
	case unix.SYS_SETDOMAINNAME:
		return "setdomainname"
	case unix.SYS_SETGROUPS:
		return "setgroups"
	case unix.SYS_SETHOSTNAME:
		return "sethostname"
	case unix.SYS_SETNS:
		return "setns"
	case unix.SYS_SETRESGID:
		return "setresgid"
	case unix.SYS_SETRESUID:
		return "setresuid"
	case unix.SYS_SETSID:
		return "setsid"
	case unix.SYS_SYMLINKAT:
		return "symlinkat"
	case unix.SYS_UMASK:
		return "umask"
	case unix.SYS_UMOUNT2:
		return "umount2"
	case unix.SYS_UNLINKAT:
		return "unlinkat"
	case unix.SYS_UNSHARE:
		return "unshare"
	case unix.SYS_WRITE:
		return "write"
	}
	return fmt.Sprintf("syscall_%d", nr)
}
