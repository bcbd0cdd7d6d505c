package seccomp

import "slices"

// x32Only are calls of x32 with numbers of their own, from 512 on, in order
// (arch/x86/entry/syscalls/syscall_64.tbl, abi x32).
func x32Only() []string {
	return []string{
		"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve", "ptrace",
		"rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify", "kexec_load",
		"waitid", "set_robust_list", "get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo",
		"recvmmsg", "sendmmsg", "process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit",
		"execveat", "preadv2", "pwritev2",
	}
}

const firstX32Only = 512

// column is that of the convention in calls.
func (c Convention) column() int {
	switch c {
	case X86:
		return 1
	case AArch64:
		return 2
	}
	return 0
}

// numberAt is the number of a call of the table, by its index, as seccomp sees
// it; false if there is none.
func (c Convention) numberAt(i int) (uint32, bool) {
	if c == X32 {
		if k := slices.Index(x32Only(), calls[i].name); k >= 0 {
			return x32Bit + firstX32Only + uint32(k), true
		}
	}
	if calls[i].numbers[c.column()] < 0 {
		return 0, false
	}
	return c.first() + uint32(calls[i].numbers[c.column()]), true
}

// numbered lists, from the convention's first number to its highest, the index
// in calls; -1 is none.
func (c Convention) numbered() []int16 {
	list := slices.Repeat([]int16{-1}, int(c.highest()-c.first())+1)
	for i := range calls {
		if n := calls[i].numbers[c.column()]; n >= 0 {
			list[n] = int16(i)
		}
	}
	if c != X32 {
		return list
	}
	for i, name := range x32Only() {
		call, _ := find(name)
		list[calls[call].numbers[c.column()]] = -1
		list[firstX32Only+i] = int16(call)
	}
	return list
}

// highest is the last number that the tables know.
func (c Convention) highest() uint32 {
	highest := uint32(0)
	for i := range calls {
		highest = max(highest, uint32(max(calls[i].numbers[c.column()], 0)))
	}
	if c == X32 {
		highest = max(highest, firstX32Only+uint32(len(x32Only()))-1)
	}
	return c.first() + highest
}

// first is the lowest number that may belong to the convention.
func (c Convention) first() uint32 {
	if c == X32 {
		return x32Bit
	}
	return 0
}
