package coredump

import "debug/elf"

// struct elf_prstatus with struct user_regs_struct (sys/user.h).
const (
	machine    = uint16(elf.EM_X86_64)
	statusSize = 336
	regPC      = 16
	regSP      = 19
)
