package coredump

import "debug/elf"

// struct elf_prstatus with struct user_pt_regs (asm/ptrace.h).
const (
	machine    = uint16(elf.EM_AARCH64)
	statusSize = 392
	regSP      = 31
	regPC      = 32
)
