package process

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/gantry-project/gantry/internal/linux"
)

// A program runs as a small executable of its own, made in a sealed memfd: the
// interpreter's machine code as text and the encoded program as data. So the
// child shares neither memory nor /proc/PID/exe with gantry. (Sharing memory
// would let the kernel's out-of-memory handling of an instance's control
// group, which kills all processes that share memory with its victim, reach
// gantry; and a script whose interpreter is /proc/self/exe would be handed the
// host's binary, as in CVE-2019-5736.)

// interp is the interpreter. It is never called here, only copied.
func interp()

// interpAddress returns where interp's code begins.
func interpAddress() uintptr

const (
	textAddress = 0x400000
	// textSize is more than the length of interp on any architecture.
	textSize = 1024
	// dataOffset is where data begins in the file: a multiple of the largest
	// page size in use (64 KiB on some arm64 kernels).
	dataOffset = 64 << 10

	elfHeaderSize     = 64
	elfProgHeaderSize = 56
)

// executable writes p as a program to a sealed memfd.
func (p *Program) executable() (*os.File, error) {
	data, err := p.encode()
	if err != nil {
		return nil, err
	}
	f, err := linux.Memfd("init")
	if err != nil {
		return nil, fmt.Errorf("make set-up program: %w", err)
	}
	if err := writeExecutable(f, data); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make set-up program: %w", err)
	}
	return f, nil
}

func writeExecutable(f *os.File, data []byte) error {
	text := elfHeader(len(data))
	address := interpAddress()
	code := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&address))), textSize)
	text = append(text, code...)
	if _, err := f.Write(text); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, dataOffset); err != nil {
		return err
	}
	return linux.Seal(f)
}

// elfHeader describes a static executable of two segments (elf(5)).
func elfHeader(dataSize int) []byte {
	const segments = 3
	const head = elfHeaderSize + segments*elfProgHeaderSize
	machine := map[string]uint16{"amd64": 62, "arm64": 183}[runtime.GOARCH]
	le := binary.LittleEndian

	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, textAddress+head) // entry
	b = le.AppendUint64(b, elfHeaderSize)    // program headers
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{elfHeaderSize, elfProgHeaderSize, segments, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	segment := func(kind, flags uint32, offset, address, size uint64) {
		b = le.AppendUint32(b, kind)
		b = le.AppendUint32(b, flags)
		for _, v := range []uint64{offset, address, address, size, size, 64 << 10} {
			b = le.AppendUint64(b, v)
		}
	}
	const load, stack, executable, writable, readable = 1, 0x6474e551, 1, 2, 4
	segment(load, readable|executable, 0, textAddress, head+textSize)
	segment(load, readable|writable, dataOffset, dataAddress, uint64(dataSize))
	segment(stack, readable|writable, 0, 0, 0)
	return b
}

// Descriptors of the child, in the order of launch's files.
const (
	statusFD = 3 // a SOCK_SEQPACKET socket to the runner
	selfFD   = 4 // the memfd itself
	firstFD  = 5 // the files passed to launch
)

// childName is what argv[0] of a child says.
const childName = "gantry-init"

// launch starts p in a child whose stdin, stdout and stderr are null, with the
// files of its places from firstFD on, and returns the child and the runner's
// end of its status socket. The child is born in the nursery, if there is one.
func launch(p *Program, null *os.File, nursery *Nursery) (*forked, *os.File, error) {
	files, opened, err := openPlaces(p.places)
	defer linux.CloseAll(opened)
	if err != nil {
		return nil, nil, err
	}
	self, err := p.executable()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = self.Close() }()
	ours, theirs, err := linux.SeqpacketPair()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = theirs.Close() }()
	files = append([]*os.File{theirs, self}, files...)
	child, born, err := nursery.bear(files, p.birthplace)
	if !born {
		child, err = fork(append([]*os.File{null, null, null}, files...), p.birthplace)
	}
	if err != nil {
		_ = ours.Close()
		return nil, nil, fmt.Errorf("start set-up program: %w", err)
	}
	return child, ours, nil
}
