#include "textflag.h"

// The interpreter; see interp_amd64.s. R19: the current step. R20: the data
// segment. R21: which arguments are indirect.
TEXT ·interp(SB),NOSPLIT|NOFRAME,$0
	MOVD $0x10000000, R20
	ADD  $64, R20, R19
step:
	MOVWU 72(R19), R21
	MOVD 8(R19), R0
	TBZ  $0, R21, arg1
	MOVD (R0), R0
arg1:
	MOVD 16(R19), R1
	TBZ  $1, R21, arg2
	MOVD (R1), R1
arg2:
	MOVD 24(R19), R2
	TBZ  $2, R21, arg3
	MOVD (R2), R2
arg3:
	MOVD 32(R19), R3
	TBZ  $3, R21, arg4
	MOVD (R3), R3
arg4:
	MOVD 40(R19), R4
	TBZ  $4, R21, arg5
	MOVD (R4), R4
arg5:
	MOVD 48(R19), R5
	TBZ  $5, R21, call
	MOVD (R5), R5
call:
	MOVD 0(R19), R8
	CMN  $1, R8
	BEQ  explicit
	SVC
	CMN  $4095, R0
	BCS  failed
	MOVD 56(R19), R9
	CBZ  R9, checked
	MOVD R0, (R9)
checked:
	MOVD 80(R19), R9
	CMN  $1, R9
	BEQ  accepted
	CMP  R0, R9
	BNE  short
accepted:
	CBNZ R0, next
	MOVW 64(R19), R9
	ADD  R9, R19, R19
next:
	ADD  $96, R19, R19
	B    step
failed:
	NEG  R0, R0
	CMP  $11, R0 // EAGAIN of openat2: look again
	BNE  listed
	MOVD 0(R19), R9
	CMP  $437, R9
	BEQ  step
listed:
	MOVHU 88(R19), R9
	CMP  R9, R0
	BEQ  ignored
	MOVHU 90(R19), R9
	CMP  R9, R0
	BEQ  ignored
	MOVHU 92(R19), R9
	CMP  R9, R0
	BEQ  ignored
	MOVHU 94(R19), R9
	CMP  R9, R0
	BEQ  ignored
	B    report
ignored:
	MOVW 68(R19), R9
	ADD  R9, R19, R19
	B    next
short:
	MOVD $28, R0 // ENOSPC: a write that was cut short
explicit: // the errno is in R0
report:
	MOVD $2, R9 // recordFailed
	MOVW R9, 0(R20)
	MOVWU 76(R19), R9
	MOVW R9, 4(R20)
	MOVD R0, 8(R20)
	MOVD 16(R20), R0 // offReport
	MOVWU (R0), R0
	MOVD R20, R1
	MOVD $16, R2
	MOVD $64, R8 // write
	SVC
	MOVD $1, R0
	MOVD $94, R8 // exit_group
	SVC
	BRK

// func interpAddress() uintptr
TEXT ·interpAddress(SB),NOSPLIT,$0-8
	MOVD $·interp(SB), R0
	MOVD R0, ret+0(FP)
	RET
