// Package coredump writes the memory of a process as an ELF core file (core(5),
// gABI) that debuggers read, without ending the process: whoever calls holds it
// still (a frozen control group).
//
// What is in it follows the kernel's default filter (coredump_filter 0x33):
// private and shared anonymous memory, stacks, and the first page of mapped ELF
// files; of the rest of mapped files only where they are, since they can be had
// elsewhere. Of each thread it has the stack and instruction pointers, which
// /proc tells of who sleeps; the other registers are zero. Pages of zeros take no
// room. It imports only the standard library, x/sys and internal/errdefs.
package coredump

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Result says what a core has.
type Result struct {
	// Bytes of memory that are in it, and that were left out because of the limit.
	Bytes, Missing int64
}

const page = 4096

// Write writes a core of the process to an empty file and lets it take at most
// limit bytes of the disk: what does not fit is left out, the memory that the
// process has written itself last. errdefs.ErrNotFound if it has ended,
// errdefs.ErrUnsupported on an architecture whose registers are not known. On
// error the file holds anything.
func Write(ctx context.Context, to *os.File, pid int, limit int64) (Result, error) {
	p, err := read(pid)
	if err != nil {
		return Result{}, fmt.Errorf("core of process %d: %w", pid, err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return Result{}, fmt.Errorf("core of process %d: %w", pid, ended(err))
	}
	defer mem.Close()
	res, err := p.write(ctx, to, mem, limit)
	if err != nil {
		return res, fmt.Errorf("core of process %d: %w", pid, err)
	}
	return res, nil
}

// write lays out header, program headers, notes and memory, in this order.
func (p *process) write(ctx context.Context, to *os.File, mem io.ReaderAt, limit int64) (Result, error) {
	notes := p.notes()
	start := roundUp(int64(64+56*(1+len(p.maps))) + int64(len(notes)))
	out := &sparse{to: to, left: limit - start}
	if out.left < 0 {
		out.left = 0
	}
	heads := make([]elf.Prog64, len(p.maps))
	at := start
	var res Result
	order := make([]int, len(p.maps))
	for i, m := range p.maps {
		order[i] = i
		heads[i] = elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: m.flags, Vaddr: m.start, Memsz: m.end - m.start, Align: page}
	}
	// what only this process has comes first, the smallest first: stacks before heaps
	slices.SortStableFunc(order, func(a, b int) int { return p.maps[a].before(p.maps[b]) })
	for _, i := range order {
		m := p.maps[i]
		want := m.dumped(mem)
		heads[i].Off = uint64(at)
		n, err := out.copy(ctx, mem, m.start, want, at)
		if err != nil {
			return res, err
		}
		heads[i].Filesz = uint64(n)
		at += n
		res.Bytes += n
		res.Missing += want - n
	}
	head := elf.Header64{
		Type: uint16(elf.ET_CORE), Machine: machine, Version: uint32(elf.EV_CURRENT), Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(1 + len(heads)),
	}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS], head.Ident[elf.EI_DATA], head.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	note := elf.Prog64{Type: uint32(elf.PT_NOTE), Off: uint64(64 + 56*(1+len(heads))), Filesz: uint64(len(notes)), Align: 4}
	raw, err := binary.Append(nil, binary.LittleEndian, head)
	for _, h := range slices.Insert(heads, 0, note) {
		if err == nil {
			raw, err = binary.Append(raw, binary.LittleEndian, h)
		}
	}
	if err != nil {
		return res, err
	}
	_, err = to.WriteAt(append(raw, notes...), 0)
	return res, errors.Join(err, to.Truncate(max(at, start)))
}

func roundUp(n int64) int64 { return (n + page - 1) / page * page }

// sparse writes pages that are not zero, as long as there is room.
type sparse struct {
	to   *os.File
	left int64 // bytes
	buf  [64 * page]byte
}

// copy writes n bytes of memory from addr on to the file at off and returns how
// many there are: fewer when there is no room for more, or when the memory cannot
// be read.
func (s *sparse) copy(ctx context.Context, mem io.ReaderAt, addr uint64, n, off int64) (int64, error) {
	var done int64
	for done < n {
		if err := ctx.Err(); err != nil {
			return done, context.Cause(ctx)
		}
		chunk := s.buf[:min(n-done, int64(len(s.buf)))]
		got, err := mem.ReadAt(chunk, int64(addr)+done)
		if got == 0 && err != nil { // a device's, or beyond the end of a file
			return done, nil //nolint:nilerr // what cannot be read is left out
		}
		for i := 0; i < got; i += page {
			p := chunk[i:min(i+page, got)]
			if isZero(p) {
				continue
			}
			if s.left < int64(len(p)) {
				return done + int64(i), nil
			}
			if _, err := s.to.WriteAt(p, off+done+int64(i)); err != nil {
				return done, err
			}
			s.left -= int64(len(p))
		}
		done += int64(got)
	}
	return done, nil
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
