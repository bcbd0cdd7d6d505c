package seccomp

import (
	"iter"
	"strings"
)

// x32Only are calls of x32 with numbers of their own, from 512 on, in order
// (arch/x86/entry/syscalls/syscall_64.tbl, abi x32).
const x32Only = `rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace rt_sigpending
	rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid set_robust_list get_robust_list
	vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv process_vm_writev setsockopt
	getsockopt io_setup io_submit execveat preadv2 pwritev2`

const firstX32Only = 512

// numbers yields the calls of a convention and their numbers, as seccomp sees
// them, in no order.
func (c Convention) numbers() iter.Seq2[string, uint32] {
	column := map[Convention]int{X8664: 0, X32: 0, X86: 1, AArch64: 2}[c]
	return func(yield func(string, uint32) bool) {
		own := map[string]bool{}
		if c == X32 {
			number := uint32(x32Bit + firstX32Only)
			for name := range strings.FieldsSeq(x32Only) {
				if !yield(name, number) {
					return
				}
				own[name] = true
				number++
			}
		}
		for name, numbers := range table() {
			n := numbers[column]
			if n < 0 || own[name] {
				continue
			}
			if c == X32 {
				n += x32Bit
			}
			if !yield(name, uint32(n)) {
				return
			}
		}
	}
}

// first is the lowest number that may belong to the convention.
func (c Convention) first() uint32 {
	if c == X32 {
		return x32Bit
	}
	return 0
}
