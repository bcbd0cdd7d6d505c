#include "textflag.h"

// The interpreter. It is copied out of this binary into the text segment of a
// small executable (image.go) and is that program's entry point, so it is
// position independent, calls nothing and uses no stack.
//
// openat2(2) answers EAGAIN when something anywhere was renamed or mounted while
// it followed a "..": such a step is repeated.
//
// R12: the current step. R13: the data segment, whose first 16 bytes are the
// record that reports a failure, followed by the address of the number of the
// socket to report on. Offsets are those of program.go.
TEXT ·interp(SB),NOSPLIT|NOFRAME,$0
	MOVL $0x10000000, R13
	LEAQ 64(R13), R12
step:
	MOVL 72(R12), BX
	MOVQ 8(R12), DI
	TESTL $1, BX
	JZ   arg1
	MOVQ (DI), DI
arg1:
	MOVQ 16(R12), SI
	TESTL $2, BX
	JZ   arg2
	MOVQ (SI), SI
arg2:
	MOVQ 24(R12), DX
	TESTL $4, BX
	JZ   arg3
	MOVQ (DX), DX
arg3:
	MOVQ 32(R12), R10
	TESTL $8, BX
	JZ   arg4
	MOVQ (R10), R10
arg4:
	MOVQ 40(R12), R8
	TESTL $16, BX
	JZ   arg5
	MOVQ (R8), R8
arg5:
	MOVQ 48(R12), R9
	TESTL $32, BX
	JZ   call
	MOVQ (R9), R9
call:
	MOVQ 0(R12), AX
	CMPQ AX, $-1
	JEQ  explicit
	SYSCALL
	CMPQ AX, $-4095
	JCC  failed
	MOVQ 56(R12), CX
	TESTQ CX, CX
	JZ   checked
	MOVQ AX, (CX)
checked:
	MOVQ 80(R12), CX
	CMPQ CX, $-1
	JEQ  accepted
	CMPQ AX, CX
	JNE  short
accepted:
	TESTQ AX, AX
	JNZ  next
	MOVLQSX 64(R12), CX
	ADDQ CX, R12
next:
	ADDQ $96, R12
	JMP  step
failed:
	NEGQ AX
	CMPW AX, $11 // EAGAIN of openat2: look again
	JNE  listed
	CMPQ 0(R12), $437
	JEQ  step
listed:
	CMPW AX, 88(R12)
	JEQ  ignored
	CMPW AX, 90(R12)
	JEQ  ignored
	CMPW AX, 92(R12)
	JEQ  ignored
	CMPW AX, 94(R12)
	JEQ  ignored
	JMP  report
ignored:
	MOVLQSX 68(R12), CX
	ADDQ CX, R12
	JMP  next
short:
	MOVL $28, AX // ENOSPC: a write that was cut short
	JMP  report
explicit:
	MOVQ DI, AX
report:
	MOVL $2, 0(R13) // recordFailed
	MOVL 76(R12), CX
	MOVL CX, 4(R13)
	MOVQ AX, 8(R13)
	MOVQ 16(R13), DI // offReport
	MOVL (DI), DI
	MOVQ R13, SI
	MOVL $16, DX
	MOVL $1, AX // write
	SYSCALL
	MOVL $1, DI
	MOVL $231, AX // exit_group
	SYSCALL
	INT  $3

// func interpAddress() uintptr
TEXT ·interpAddress(SB),NOSPLIT,$0-8
	LEAQ ·interp(SB), AX
	MOVQ AX, ret+0(FP)
	RET
