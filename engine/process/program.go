package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// Program is a Spec compiled to system calls. It is plain data and makes no
// system call itself: compile does no I/O, encode lays it out for the
// interpreter, String renders it for reading and for golden tests.
//
// The interpreter (interp_amd64.s, interp_arm64.s) walks the steps in order.
// It knows nothing but: load arguments, call, store the result, and on an
// error either skip ahead (if the step lists the errno) or report the step
// and end.
type Program struct {
	steps []step
	// args are those of the steps.
	args []value
	// data holds strings, structures and result slots; relocs are the places
	// in it that hold addresses of other places in it.
	data   []byte
	relocs []reloc
	// starts are the offsets in data of strings, to share equal ones.
	strings map[string]int
	// constants are those of constant, by their bytes.
	constants map[string]value
	// slots names the result slots, for String.
	slots map[int]string
	// report holds the number of the socket that a failing step is reported on:
	// statusFD, until a step stores another there.
	report int
	// places are the files of the child, from firstFD on.
	places []place
	// birthplace is a directory of cgroup v2, nil for that of the runner.
	birthplace *os.File
	// image is the memory of the last encode.
	image []byte
}

type reloc struct{ at, target int }

// A step is one system call.
type step struct {
	// name says what the call is for, in an error: "mount proc".
	name string
	nr   uintptr
	args []value
	// out receives the result; -1 for none.
	out int
	// want is the only accepted result; anyResult accepts all.
	want int64
	// ignored errnos do not end the program: it goes on behind skipIgnored
	// further steps, or at an earlier one when that is negative. At most
	// maxIgnored.
	ignored     []unix.Errno
	skipIgnored int
	// skipZero further steps are left out when the result is 0; negative to go
	// back.
	skipZero int
	// fault turns the errno into an error for callers; nil for the default.
	fault func(unix.Errno) error
}

const (
	anyResult  = -1
	maxIgnored = 4
	// nrFail is a step that always fails, with the errno in its first argument.
	nrFail = ^uintptr(0)
)

// A value is an argument of a call.
type value struct {
	kind valueKind
	num  uint64 // kindNumber
	off  int    // kindAddress, kindResult: offset in data
	text string // as shown by String
	// quoted: text is the string itself.
	quoted bool
}

type valueKind uint8

const (
	kindNumber valueKind = iota
	kindAddress
	kindResult
)

func num[T ~int | ~uint | ~int64 | ~uint32 | ~uint64 | ~uintptr](n T) value {
	return value{kind: kindNumber, num: uint64(n)}
}

// atCwd is AT_FDCWD, the directory descriptor of the working directory.
func atCwd() value {
	fd := unix.AT_FDCWD
	return value{kind: kindNumber, num: uint64(fd), text: "CWD"}
}

func newProgram() *Program {
	p := &Program{strings: map[string]int{}, constants: map[string]value{}, slots: map[int]string{}}
	p.begin()
	return p
}

// begin puts in what each program has.
func (p *Program) begin() { p.report = p.alloc(binary.LittleEndian.AppendUint64(nil, statusFD)) }

// reset makes an empty program of one that nobody needs any more, for its
// memory.
func (p *Program) reset() {
	clear(p.steps)
	clear(p.args)
	clear(p.data)
	clear(p.places)
	clear(p.strings)
	clear(p.constants)
	clear(p.slots)
	*p = Program{
		steps: p.steps[:0], args: p.args[:0], data: p.data[:0], relocs: p.relocs[:0], places: p.places[:0], image: p.image,
		strings: p.strings, constants: p.constants, slots: p.slots,
	}
	p.begin()
}

// grow makes room for a program of usual size.
func (p *Program) grow() {
	p.steps, p.args, p.data = slices.Grow(p.steps, 512), slices.Grow(p.args, 2048), slices.Grow(p.data, 16<<10)
}

// alloc reserves an aligned place in data holding b.
func (p *Program) alloc(b []byte) int {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
	at := len(p.data)
	p.data = append(p.data, b...)
	return at
}

// str is the address of a C string. s holds no NUL: validate has seen to it.
func (p *Program) str(s string) value {
	at, ok := p.strings[s]
	if !ok {
		at = p.alloc(append([]byte(s), 0))
		p.strings[s] = at
	}
	return value{kind: kindAddress, off: at, text: s, quoted: true}
}

// constant is the address of words that nothing writes to; equal ones are one.
// text describes them.
func (p *Program) constant(text func() string, words ...uint64) value {
	b := make([]byte, 0, 8*len(words))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	v, ok := p.constants[string(b)]
	if !ok {
		v = p.buf(b, text())
		p.constants[string(b)] = v
	}
	return v
}

// buf is the address of a structure or of bytes; text describes them.
func (p *Program) buf(b []byte, text string) value {
	return value{kind: kindAddress, off: p.alloc(b), text: text}
}

// pointers is the address of a NULL-terminated array of C strings.
func (p *Program) pointers(list []string, text string) value {
	targets := make([]int, len(list))
	for i, s := range list {
		targets[i] = p.str(s).off
	}
	at := p.alloc(make([]byte, 8*(len(list)+1)))
	for i, target := range targets {
		p.relocs = append(p.relocs, reloc{at + 8*i, target})
	}
	return value{kind: kindAddress, off: at, text: text}
}

// slot reserves a place for a result and names it.
func (p *Program) slot(name string) value { return p.slotAt(p.alloc(make([]byte, 8)), name) }

// slotAt makes a place inside a structure receive a result.
func (p *Program) slotAt(at int, name string) value {
	p.slots[at] = name
	return value{kind: kindResult, off: at, text: name}
}

// call appends a step. The returned pointer is valid until the next call.
func (p *Program) call(name string, nr uintptr, args ...value) *step {
	at := len(p.args)
	p.args = append(p.args, args...)
	p.steps = append(p.steps, step{name: name, nr: nr, args: p.args[at:len(p.args):len(p.args)], out: -1, want: anyResult})
	return &p.steps[len(p.steps)-1]
}

func (s *step) to(slot value) *step             { s.out = slot.off; return s }
func (s *step) wants(n int) *step               { s.want = int64(n); return s }
func (s *step) ignore(errs ...unix.Errno) *step { s.ignored = errs; return s }
func (s *step) faults(f func(unix.Errno) error) *step {
	s.fault = f
	return s
}

// A jump is a step whose skip count is not known yet.
type jump struct {
	step   int
	onZero bool
}

// jumpIgnored makes the last step skip ahead, on an ignored errno, to where
// land is called.
func (p *Program) jumpIgnored() jump { return jump{step: len(p.steps) - 1} }

// jumpZero makes the last step skip ahead, on result 0, to where land is
// called.
func (p *Program) jumpZero() jump { return jump{step: len(p.steps) - 1, onZero: true} }

func (p *Program) land(j jump) {
	n := len(p.steps) - j.step - 1
	if j.onZero {
		p.steps[j.step].skipZero = n
	} else {
		p.steps[j.step].skipIgnored = n
	}
}

// here is the index of the next step, for backZero.
func (p *Program) here() int { return len(p.steps) }

// backZero makes the last step go back to step index on result 0.
func (p *Program) backZero(index int) { p.steps[len(p.steps)-1].skipZero = index - len(p.steps) }

// Layout of the data segment, shared with the interpreters: a header, then the
// steps, then data. All numbers are little endian. The header is a record and
// the address of the number of the socket that it is written to.
const (
	dataAddress = 0x10000000 // where the segment is mapped
	headerSize  = 64
	offReport   = 16
	stepSize    = 96

	offArgs        = 8
	offOut         = 56
	offSkipZero    = 64 // bytes, a multiple of stepSize, signed
	offSkipIgnored = 68 // bytes, signed
	offIndirect    = 72 // bit i: argument i is the address of the value
	offIndex       = 76
	offWant        = 80
	offIgnored     = 88 // maxIgnored numbers of 16 bits, 0 for unused
)

// encode lays the program out as the data segment of the interpreter. It is valid
// until the next encode or reset.
func (p *Program) encode() ([]byte, error) {
	le := binary.LittleEndian
	dataStart := headerSize + stepSize*len(p.steps)
	p.image = slices.Grow(p.image[:0], dataStart+len(p.data))[:dataStart+len(p.data)]
	clear(p.image)
	image := p.image
	addr := func(off int) uint64 { return uint64(dataAddress + dataStart + off) }
	le.PutUint64(image[offReport:], addr(p.report))
	for i := range p.steps {
		s := &p.steps[i]
		if len(s.args) > 6 || len(s.ignored) > maxIgnored {
			return nil, fmt.Errorf("encode step %d (%s): too many arguments", i, s.name)
		}
		b := image[headerSize+stepSize*i:][:stepSize]
		le.PutUint64(b, uint64(s.nr))
		var indirect uint32
		for k, a := range s.args {
			v := a.num
			if a.kind != kindNumber {
				v = addr(a.off)
			}
			if a.kind == kindResult {
				indirect |= 1 << k
			}
			le.PutUint64(b[offArgs+8*k:], v)
		}
		if s.out >= 0 {
			le.PutUint64(b[offOut:], addr(s.out))
		}
		le.PutUint32(b[offSkipZero:], uint32(s.skipZero*stepSize))
		le.PutUint32(b[offSkipIgnored:], uint32(s.skipIgnored*stepSize))
		le.PutUint32(b[offIndirect:], indirect)
		le.PutUint32(b[offIndex:], uint32(i))
		le.PutUint64(b[offWant:], uint64(s.want))
		for k, e := range s.ignored {
			le.PutUint16(b[offIgnored+2*k:], uint16(e))
		}
	}
	copy(image[dataStart:], p.data)
	for _, r := range p.relocs {
		le.PutUint64(image[dataStart+r.at:], addr(r.target))
	}
	return image, nil
}

// failure is the error of a step that ended the program with errno.
func (p *Program) failure(index int, errno unix.Errno) error {
	if index < 0 || index >= len(p.steps) {
		return fmt.Errorf("unknown step %d: %w", index, errno)
	}
	s := &p.steps[index]
	if s.fault != nil {
		if err := s.fault(errno); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	switch {
	case errors.Is(errno, unix.ENOSPC), errors.Is(errno, unix.ENOMEM), errors.Is(errno, unix.EMFILE),
		errors.Is(errno, unix.ENFILE), errors.Is(errno, unix.EDQUOT), errors.Is(errno, unix.EAGAIN):
		return fmt.Errorf("%s: %w: %w", s.name, errno, errdefs.ErrExhausted)
	}
	return fmt.Errorf("%s: %w", s.name, errno)
}
