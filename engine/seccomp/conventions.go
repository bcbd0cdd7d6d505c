package seccomp

import (
	"strings"
	"sync"
)

// x32Only are calls of x32 with numbers of their own, from 512 on, in order
// (arch/x86/entry/syscalls/syscall_64.tbl, abi x32).
const x32Only = `rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace rt_sigpending
	rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid set_robust_list get_robust_list
	vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv process_vm_writev setsockopt
	getsockopt io_setup io_submit execveat preadv2 pwritev2`

const firstX32Only = 512

// x32Numbers are those of x32Only, without the bit. The result is shared and
// must not be changed.
var x32Numbers = sync.OnceValue(func() map[string]uint32 {
	m := map[string]uint32{}
	for name := range strings.FieldsSeq(x32Only) {
		m[name] = firstX32Only + uint32(len(m))
	}
	return m
})

// column is that of the convention in the table.
func (c Convention) column() int {
	switch c {
	case X86:
		return 1
	case AArch64:
		return 2
	}
	return 0
}

// number is that of a call as seccomp sees it; false if there is none.
func (c Convention) number(name string) (uint32, bool) {
	if c == X32 {
		if n, ok := x32Numbers()[name]; ok {
			return x32Bit + n, true
		}
	}
	numbers, ok := table()[name]
	n := numbers[c.column()]
	if !ok || n < 0 {
		return 0, false
	}
	return c.first() + uint32(n), true
}

// highestNumbers of the table's columns.
var highestNumbers = sync.OnceValue(func() (highest [3]uint32) {
	for _, numbers := range table() {
		for i, n := range numbers {
			highest[i] = max(highest[i], uint32(max(n, 0)))
		}
	}
	return highest
})

// highest is the last number that the tables know.
func (c Convention) highest() uint32 {
	n := highestNumbers()[c.column()]
	if c == X32 {
		n = max(n, firstX32Only+uint32(len(x32Numbers()))-1)
	}
	return c.first() + n
}

// first is the lowest number that may belong to the convention.
func (c Convention) first() uint32 {
	if c == X32 {
		return x32Bit
	}
	return 0
}
