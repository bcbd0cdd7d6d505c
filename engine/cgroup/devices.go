package cgroup

import (
	"fmt"
	"strings"
)

func (d Device) validate() error {
	switch {
	case d.Type != 'c' && d.Type != 'b':
		return invalid("devices", "type %q", d.Type)
	case d.Major < -1 || d.Major >= 1<<12 || d.Minor < -1 || d.Minor >= 1<<20:
		return invalid("devices", "number %d:%d", d.Major, d.Minor)
	case d.Access == "" || strings.Trim(d.Access, "rwm") != "":
		return invalid("devices", "access %q", d.Access)
	}
	return nil
}

// line is the form of cgroup v1's devices.allow.
func (d Device) line() string {
	number := func(n int64) string {
		if n < 0 {
			return "*"
		}
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%c %s:%s %s", d.Type, number(d.Major), number(d.Minor), d.Access)
}

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
	bpfJneImm  = 0x55 // JMP | JNE | K
	bpfJneReg  = 0x5d // JMP | JNE | X
	bpfExitFun = 0x95 // JMP | EXIT
)

// Bits of bpf_cgroup_dev_ctx.access_type: the device type in the low half, the
// access in the high half (linux/bpf.h BPF_DEVCG_*).
const (
	devBlock, devChar             = 1, 2
	accMknod, accRead, accWrite   = 1, 2, 4
	ctxAccess, ctxMajor, ctxMinor = 0, 4, 8
)

// deviceProgram is the BPF program of type CGROUP_DEVICE that allows exactly
// the devices: for each one "type, access, major and minor match: return 1",
// and "return 0" at the end.
func deviceProgram(devices []Device) []bpfInsn {
	const ctx, typ, access, major, minor, asked = 1, 2, 3, 4, 5, 6
	p := []bpfInsn{
		{bpfLdxW, typ | ctx<<4, ctxAccess, 0},
		{bpfMovReg, access | typ<<4, 0, 0},
		{bpfAndImm, typ, 0, 0xffff},
		{bpfRshImm, access, 0, 16},
		{bpfLdxW, major | ctx<<4, ctxMajor, 0},
		{bpfLdxW, minor | ctx<<4, ctxMinor, 0},
	}
	for _, d := range devices {
		var rule []bpfInsn
		kind := int32(devChar)
		if d.Type == 'b' {
			kind = devBlock
		}
		rule = append(rule, bpfInsn{bpfJneImm, typ, 0, kind})
		if bits := accessBits(d.Access); bits != accMknod|accRead|accWrite {
			rule = append(rule,
				bpfInsn{bpfMovReg, asked | access<<4, 0, 0},
				bpfInsn{bpfAndImm, asked, 0, bits},
				bpfInsn{bpfJneReg, asked | access<<4, 0, 0}, // asks for more
			)
		}
		if d.Major >= 0 {
			rule = append(rule, bpfInsn{bpfJneImm, major, 0, int32(d.Major)})
		}
		if d.Minor >= 0 {
			rule = append(rule, bpfInsn{bpfJneImm, minor, 0, int32(d.Minor)})
		}
		rule = append(rule, bpfInsn{bpfMovImm, 0, 0, 1}, bpfInsn{bpfExitFun, 0, 0, 0})
		for n := range rule {
			if c := rule[n].Code; c == bpfJneImm || c == bpfJneReg {
				rule[n].Off = int16(len(rule) - n - 1)
			}
		}
		p = append(p, rule...)
	}
	return append(p, bpfInsn{bpfMovImm, 0, 0, 0}, bpfInsn{bpfExitFun, 0, 0, 0})
}

func accessBits(s string) (bits int32) {
	for _, c := range s {
		switch c {
		case 'r':
			bits |= accRead
		case 'w':
			bits |= accWrite
		case 'm':
			bits |= accMknod
		}
	}
	return bits
}
