package coredump

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// process is what /proc tells of one, for a core.
type process struct {
	pid     int
	name    string
	command []byte
	auxv    []byte
	maps    []mapping
	threads []thread
}

// mapping is a line of /proc/PID/maps (proc_pid_maps(5)).
type mapping struct {
	start, end uint64
	flags      uint32 // of a program header
	shared     bool
	offset     uint64
	file       string // "" is anonymous
}

// thread is where a thread is.
type thread struct{ id, sp, pc uint64 }

func read(pid int) (*process, error) {
	if machine == 0 {
		return nil, fmt.Errorf("registers of this architecture: %w", errdefs.ErrUnsupported)
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	p := &process{pid: pid}
	maps, err := os.ReadFile(dir + "maps")
	if err == nil {
		p.maps, err = parseMaps(string(maps))
	}
	if err != nil {
		return nil, ended(err)
	}
	if len(p.maps) == 0 {
		return nil, fmt.Errorf("it has no memory: %w", errdefs.ErrNotFound)
	}
	comm, err1 := os.ReadFile(dir + "comm")
	var err2, err3 error
	p.name = strings.TrimSpace(string(comm))
	p.command, err2 = os.ReadFile(dir + "cmdline")
	p.auxv, err3 = os.ReadFile(dir + "auxv")
	entries, err4 := os.ReadDir(dir + "task")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, ended(err)
	}
	for _, e := range entries {
		id, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		call, _ := os.ReadFile(dir + "task/" + e.Name() + "/syscall")
		sp, pc := pointers(string(call))
		p.threads = append(p.threads, thread{id: id, sp: sp, pc: pc})
	}
	// the first thread is what a debugger shows first
	slices.SortFunc(p.threads, func(a, b thread) int { return cmp.Compare(a.id, b.id) })
	return p, nil
}

// ended makes the errors of a process that is gone errdefs.ErrNotFound.
func ended(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	}
	return err
}

// pointers reads the last two fields of /proc/PID/syscall. A thread that runs has
// none.
func pointers(text string) (sp, pc uint64) {
	f := strings.Fields(text)
	if len(f) < 3 {
		return 0, 0
	}
	sp, _ = strconv.ParseUint(strings.TrimPrefix(f[len(f)-2], "0x"), 16, 64)
	pc, _ = strconv.ParseUint(strings.TrimPrefix(f[len(f)-1], "0x"), 16, 64)
	return sp, pc
}

// maxMaps is what a program header table can count.
const maxMaps = 0xfff0

func parseMaps(text string) ([]mapping, error) {
	var out []mapping
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 5 || len(f[1]) != 4 {
			return nil, fmt.Errorf("line %.80q of maps: %w", line, errdefs.ErrInvalid)
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		offset, err3 := strconv.ParseUint(f[2], 16, 64)
		if err := errors.Join(err1, err2, err3); err != nil || end <= start {
			return nil, fmt.Errorf("line %.80q of maps: %w", line, errdefs.ErrInvalid)
		}
		m := mapping{start: start, end: end, offset: offset, shared: f[1][3] == 's'}
		for i, flag := range []elf.ProgFlag{elf.PF_R, elf.PF_W, elf.PF_X} {
			if f[1][i] != '-' {
				m.flags |= uint32(flag)
			}
		}
		if len(f) > 5 && strings.HasPrefix(f[5], "/") {
			_, name, _ := strings.Cut(line, f[4]) // a name may have spaces
			m.file = strings.TrimSpace(name)
		}
		if len(f) > 5 && (f[5] == "[vvar]" || f[5] == "[vvar_vclock]" || f[5] == "[vsyscall]") {
			continue // the kernel's
		}
		if out = append(out, m); len(out) > maxMaps {
			return nil, fmt.Errorf("more than %d mappings: %w", maxMaps, errdefs.ErrUnsupported)
		}
	}
	return out, nil
}

// before orders by what is worth most.
func (m mapping) before(o mapping) int {
	rank := func(m mapping) int {
		switch {
		case m.file != "" && m.flags&uint32(elf.PF_W) == 0:
			return 0 // one page
		case m.shared:
			return 2
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(m), rank(o)), cmp.Compare(m.end-m.start, o.end-o.start))
}

// dumped is how much of the mapping belongs into a core (bytes).
func (m mapping) dumped(mem io.ReaderAt) int64 {
	size := int64(m.end - m.start)
	memory := m.file == "" || strings.HasPrefix(m.file, "/dev/zero") || strings.HasPrefix(m.file, "/dev/shm/") ||
		strings.HasPrefix(m.file, "/memfd:") || strings.HasPrefix(m.file, "/SYSV")
	switch {
	case m.flags&uint32(elf.PF_R) == 0:
		return 0
	case memory, !m.shared && m.flags&uint32(elf.PF_W) != 0:
		return size
	case m.offset == 0 && !m.shared:
		var magic [4]byte
		if _, err := mem.ReadAt(magic[:], int64(m.start)); err == nil && string(magic[:]) == elf.ELFMAG {
			return min(size, page)
		}
	}
	return 0
}

// notes are those of a core: each thread's status, what the process is, its
// auxiliary vector and its files.
func (p *process) notes() []byte {
	var b bytes.Buffer
	for i, t := range p.threads {
		note(&b, elf.NT_PRSTATUS, p.status(t))
		if i == 0 {
			note(&b, elf.NT_PRPSINFO, p.info())
			note(&b, noteAuxv, p.auxv)
			note(&b, noteFile, p.files())
		}
	}
	return b.Bytes()
}

// The notes that debug/elf has no names for (elf.h).
const (
	noteAuxv elf.NType = 6
	noteFile elf.NType = 0x46494c45
)

func note(b *bytes.Buffer, kind elf.NType, data []byte) {
	put := func(n uint32) { b.Write(binary.LittleEndian.AppendUint32(nil, n)) }
	put(5)
	put(uint32(len(data)))
	put(uint32(kind))
	b.WriteString("CORE\x00\x00\x00\x00")
	b.Write(data)
	b.Write(make([]byte, -len(data)&3))
}

// status is struct elf_prstatus (linux/elfcore.h).
func (p *process) status(t thread) []byte {
	out := make([]byte, statusSize)
	binary.LittleEndian.PutUint32(out[32:], uint32(t.id))
	binary.LittleEndian.PutUint64(out[112+8*regSP:], t.sp)
	binary.LittleEndian.PutUint64(out[112+8*regPC:], t.pc)
	return out
}

// info is struct elf_prpsinfo (linux/elfcore.h).
func (p *process) info() []byte {
	out := make([]byte, 136)
	out[1] = 'S'
	binary.LittleEndian.PutUint32(out[24:], uint32(p.pid))
	copy(out[40:55], p.name)
	copy(out[56:135], bytes.ReplaceAll(p.command, []byte{0}, []byte(" ")))
	return out
}

// files is the note NT_FILE: which files are mapped where.
func (p *process) files() []byte {
	var heads, names []byte
	var n uint64
	for _, m := range p.maps {
		if m.file == "" {
			continue
		}
		n++
		heads = binary.LittleEndian.AppendUint64(heads, m.start)
		heads = binary.LittleEndian.AppendUint64(heads, m.end)
		heads = binary.LittleEndian.AppendUint64(heads, m.offset/page)
		names = append(append(names, m.file...), 0)
	}
	out := binary.LittleEndian.AppendUint64(nil, n)
	out = binary.LittleEndian.AppendUint64(out, page)
	return append(append(out, heads...), names...)
}
