package cgroup

import "slices"

// bpfInsn is one eBPF instruction (linux/bpf.h struct bpf_insn).
type bpfInsn struct {
	Code uint8
	Regs uint8 // destination in the low, source in the high four bits
	Off  int16
	Imm  int32
}

// Instruction codes, composed as in linux/bpf_common.h and linux/bpf.h.
const (
	bpfLdxW    = 0x61 // LDX | W | MEM: dst = *(u32 *)(src + off)
	bpfMovReg  = 0xbf // ALU64 | MOV | X
	bpfMovImm  = 0xb7 // ALU64 | MOV | K
	bpfAndImm  = 0x57 // ALU64 | AND | K
	bpfRshImm  = 0x77 // ALU64 | RSH | K
	bpfJeqImm  = 0x15 // JMP | JEQ | K
	bpfJneImm  = 0x55 // JMP | JNE | K
	bpfExitFun = 0x95 // JMP | EXIT
)

// Types and places of bpf_cgroup_dev_ctx (linux/bpf.h): access_type has the
// device type in the low half and the access in the high half.
const (
	devBlock, devChar             = 1, 2
	ctxAccess, ctxMajor, ctxMinor = 0, 4, 8
)

// Registers of the program.
const (
	regResult, regCtx, regType, regWanted, regMajor, regMinor, regPart = 0, 1, 2, 3, 4, 5, 6
)

// deviceProgram is the BPF program of type CGROUP_DEVICE for rules of which
// the last that matches decides, for each access by itself. So it asks them
// from the last to the first: one that forbids an access still wanted ends
// with 0; one that allows takes away what it allows, and ends with 1 when
// nothing is left. In the end, 0.
func deviceProgram(rules []DeviceRule) []bpfInsn {
	p := []bpfInsn{
		{bpfLdxW, regType | regCtx<<4, ctxAccess, 0},
		{bpfMovReg, regWanted | regType<<4, 0, 0},
		{bpfAndImm, regType, 0, 0xffff},
		{bpfRshImm, regWanted, 0, 16},
		{bpfLdxW, regMajor | regCtx<<4, ctxMajor, 0},
		{bpfLdxW, regMinor | regCtx<<4, ctxMinor, 0},
	}
	for _, r := range slices.Backward(rules) {
		p = append(p, r.program()...)
		if r.everything() {
			return p // nothing before it counts
		}
	}
	return append(p, bpfInsn{bpfMovImm, regResult, 0, 0}, bpfInsn{bpfExitFun, 0, 0, 0})
}

// program of one rule; what it does not decide goes on after its end.
func (r DeviceRule) program() []bpfInsn {
	var p []bpfInsn
	switch r.Type {
	case 'b':
		p = append(p, bpfInsn{bpfJneImm, regType, 0, devBlock})
	case 'c':
		p = append(p, bpfInsn{bpfJneImm, regType, 0, devChar})
	}
	if r.Major >= 0 {
		p = append(p, bpfInsn{bpfJneImm, regMajor, 0, int32(r.Major)})
	}
	if r.Minor >= 0 {
		p = append(p, bpfInsn{bpfJneImm, regMinor, 0, int32(r.Minor)})
	}
	bits, result := accessBits(r.Access), int32(0)
	if r.Allow {
		result = 1
	}
	switch {
	case bits == accessAll: // decides
	case r.Allow:
		p = append(p, bpfInsn{bpfAndImm, regWanted, 0, accessAll &^ bits}, bpfInsn{bpfJneImm, regWanted, 0, 0})
	default:
		p = append(p,
			bpfInsn{bpfMovReg, regPart | regWanted<<4, 0, 0},
			bpfInsn{bpfAndImm, regPart, 0, bits},
			bpfInsn{bpfJeqImm, regPart, 0, 0},
		)
	}
	p = append(p, bpfInsn{bpfMovImm, regResult, 0, result}, bpfInsn{bpfExitFun, 0, 0, 0})
	for n := range p {
		if c := p[n].Code; c == bpfJneImm || c == bpfJeqImm {
			p[n].Off = int16(len(p) - n - 1)
		}
	}
	return p
}
