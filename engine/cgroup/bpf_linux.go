package cgroup

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Commands and types of bpf(2), linux/bpf.h.
const (
	bpfProgTypeCgroupDevice = 15
	bpfAttachCgroupDevice   = 6
	bpfFlagAllowMulti       = 2
	maxAttached             = 64 // BPF_CGROUP_MAX_PROGS
)

// The parts of union bpf_attr that are used, padded to what the kernel reads.
type bpfLoadAttr struct {
	ProgType, InsnCount uint32
	Insns, License      uint64
	LogLevel, LogSize   uint32
	LogBuf              uint64
	KernVersion, Flags  uint32
	Name                [16]byte
}

type bpfAttachAttr struct {
	Target, Prog, Type, Flags, Replace uint32
}

type bpfQueryAttr struct {
	Target, Type, QueryFlags, AttachFlags uint32
	IDs                                   uint64
	Count, _                              uint32
	_                                     [3]uint64
}

type bpfIDAttr struct{ ID, Next, Flags uint32 }

// attachDevices gives a v2 group the rules for devices. Programs of an
// earlier call are detached after the new one is in place; all attached ones
// must agree, so nothing is allowed in between that either forbids.
func attachDevices(dir string, rules []DeviceRule) error {
	target, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("attach device program: %w", err)
	}
	defer target.Close()
	old, err := attachedPrograms(target)
	if err != nil {
		return err
	}
	prog, err := loadProgram(deviceProgram(rules))
	if err != nil {
		return err
	}
	defer unix.Close(prog)
	at := bpfAttachAttr{
		Target: uint32(target.Fd()), Prog: uint32(prog), Type: bpfAttachCgroupDevice, Flags: bpfFlagAllowMulti,
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&at), unsafe.Sizeof(at)); err != nil {
		return fmt.Errorf("attach device program: %w", err)
	}
	var errs []error
	for _, id := range old {
		errs = append(errs, detachProgram(target, id))
	}
	return errors.Join(errs...)
}

func loadProgram(insns []bpfInsn) (int, error) {
	license := []byte("Apache-2.0\x00")
	log := make([]byte, 4096)
	// The kernel gets addresses as numbers: what they name must not move.
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&insns[0])
	pin.Pin(&license[0])
	pin.Pin(&log[0])
	at := bpfLoadAttr{
		ProgType: bpfProgTypeCgroupDevice, InsnCount: uint32(len(insns)),
		Insns:   uint64(uintptr(unsafe.Pointer(&insns[0]))),
		License: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(at.Name[:], "gantry_devices")
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&at), unsafe.Sizeof(at))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES) {
		// Once more, for the verifier's reason.
		at.LogLevel, at.LogSize, at.LogBuf = 1, uint32(len(log)), uint64(uintptr(unsafe.Pointer(&log[0])))
		fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&at), unsafe.Sizeof(at))
	}
	if err != nil {
		return -1, fmt.Errorf("load device program: %w %s", err, unix.ByteSliceToString(log))
	}
	return fd, nil
}

func attachedPrograms(target *os.File) ([]uint32, error) {
	ids := make([]uint32, maxAttached)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	at := bpfQueryAttr{
		Target: uint32(target.Fd()), Type: bpfAttachCgroupDevice,
		IDs: uint64(uintptr(unsafe.Pointer(&ids[0]))), Count: maxAttached,
	}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&at), unsafe.Sizeof(at))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return nil, fmt.Errorf("query device programs: %w: %w", err, errdefs.ErrUnsupported)
	}
	if err != nil {
		return nil, fmt.Errorf("query device programs: %w", err)
	}
	return ids[:min(at.Count, maxAttached)], nil
}

// detachProgram removes a program; one that is gone already is nil.
func detachProgram(target *os.File, id uint32) error {
	get := bpfIDAttr{ID: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&get), unsafe.Sizeof(get))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get device program %d: %w", id, err)
	}
	defer unix.Close(fd)
	at := bpfAttachAttr{Target: uint32(target.Fd()), Prog: uint32(fd), Type: bpfAttachCgroupDevice}
	if _, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&at), unsafe.Sizeof(at)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("detach device program %d: %w", id, err)
	}
	return nil
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR, unix.EAGAIN: // the verifier was interrupted
			continue
		default:
			return -1, errno
		}
	}
}
