package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// Layout of the guard's state, a memfd that guard and keeper share. It ends
// with the last of both, so it needs no compatibility but that between a
// keeper and the one that replaces it: stateMagic changes with the layout.
// Numbers are little endian.
//
//	0        magic
//	8        pid of the guard; the guard writes it
//	16       addresses of path, argv and envp of the command, in the guard
//	40       the same for the command that is on trial, or 0
//	64       journal of consoles (journal.go)
//	4096     one byte for each slot: the console's output ended in '\r' (journal.go)
//	69632    the chunk of console output that is under way (journal.go)
//	135168   two places for commands, of which 16 names one
//	266240   how processes ended that the guard has taken; the guard appends
const (
	stateMagic   = "gantryG1"
	offGuardPid  = 8
	offCommand   = 16
	offTrial     = 40
	offJournal   = 64
	offHeld      = 4 << 10
	heldSlots    = 64 << 10
	offChunk     = offHeld + heldSlots
	offCommands  = offChunk + 64<<10
	commandSize  = 64 << 10
	exitsBase    = offCommands + 2*commandSize
	exitSize     = 32
	exitsPerRead = 128

	// sharedAddress is where the guard maps its state.
	sharedAddress = 0x20000000
)

// newGuardState makes the state of a new guard. Its file offset is where the
// guard writes.
func newGuardState(argv, env []string) (*os.File, error) {
	fd, err := unix.MemfdCreate("gantry-guard", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("gantry-guard", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "guard state")
	head := make([]byte, offJournal)
	copy(head, stateMagic)
	block, words, err := encodeCommand(0, argv, env)
	if err == nil {
		copy(head[offCommand:], words)
		_, err = f.WriteAt(head, 0)
	}
	if err == nil {
		_, err = f.WriteAt(block, offCommands)
	}
	if err == nil {
		err = f.Truncate(exitsBase)
	}
	if err == nil {
		_, err = f.Seek(exitsBase, 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// encodeCommand lays out a command for place 0 or 1, and the addresses that
// execve(2) needs.
func encodeCommand(place int, argv, env []string) (block, words []byte, err error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, nil, invalid("empty command")
	}
	env = slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, guardName+"=") })
	env = append(env, guardVariable)
	le := binary.LittleEndian
	base := uint64(sharedAddress + offCommands + place*commandSize)
	pointers := 8 * (len(argv) + 1 + len(env) + 1)
	block = make([]byte, pointers, pointers+256)
	at := 0
	for _, list := range [][]string{argv, env} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return nil, nil, invalid("argument or environment with a NUL")
			}
			le.PutUint64(block[at:], base+uint64(len(block)))
			block = append(append(block, s...), 0)
			at += 8
		}
		at += 8 // NULL
	}
	if len(block) > commandSize {
		return nil, nil, invalid("command and environment take %d bytes, more than %d", len(block), commandSize)
	}
	words = le.AppendUint64(nil, le.Uint64(block)) // path is argv[0]
	words = le.AppendUint64(words, base)
	words = le.AppendUint64(words, base+uint64(8*(len(argv)+1)))
	return block, words, nil
}

// tryCommand lays out a command on trial, beside the one in use.
func tryCommand(state []byte, argv, env []string) error {
	place := 0
	if binary.LittleEndian.Uint64(state[offCommand+8:]) == sharedAddress+offCommands {
		place = 1
	}
	block, words, err := encodeCommand(place, argv, env)
	if err != nil {
		return err
	}
	clear(state[offTrial : offTrial+24])
	copy(state[offCommands+place*commandSize:], block)
	copy(state[offTrial:], words)
	return nil
}

// confirmCommand puts the command on trial into use.
func confirmCommand(state []byte) {
	if binary.LittleEndian.Uint64(state[offTrial:]) != 0 {
		// A guard that reads in between has one of both: each word of either is
		// valid, and commands differ little.
		copy(state[offCommand:offCommand+24], state[offTrial:])
		clear(state[offTrial : offTrial+24])
	}
}

// commandAt reads the command that the words at offset at name.
func commandAt(state []byte, at int) (argv, env []string, err error) {
	le := binary.LittleEndian
	inside := func(address uint64) (int, bool) {
		if address < sharedAddress+offCommands || address > sharedAddress+exitsBase-8 {
			return 0, false
		}
		return int(address - sharedAddress), true
	}
	list := func(address uint64) (out []string, ok bool) {
		for ; ; address += 8 {
			at, ok := inside(address)
			if !ok {
				return nil, false
			}
			word := le.Uint64(state[at:])
			if word == 0 {
				return out, true
			}
			if at, ok = inside(word); !ok {
				return nil, false
			}
			s, _, found := bytes.Cut(state[at:exitsBase], []byte{0})
			if !found {
				return nil, false
			}
			out = append(out, string(s))
		}
	}
	argv, okArgs := list(le.Uint64(state[at+8:]))
	env, okEnv := list(le.Uint64(state[at+16:]))
	if !okArgs || !okEnv || len(argv) == 0 {
		return nil, nil, fmt.Errorf("command of the guard: %w", errdefs.ErrCorrupt)
	}
	return argv, env, nil
}

// A recordedExit is one record of the guard: pid, wait status, time.
type recordedExit struct {
	pid    int
	status unix.WaitStatus
	time   time.Time
}

func decodeExit(b []byte) recordedExit {
	le := binary.LittleEndian
	return recordedExit{
		pid:    int(int64(le.Uint64(b))),
		status: unix.WaitStatus(le.Uint32(b[8:])),
		time:   time.Unix(int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:]))),
	}
}

// findExit looks for the exit of pid in the records from offset from on.
func findExit(state *os.File, pid int, from int64) (recordedExit, bool) {
	buf := make([]byte, exitsPerRead*exitSize)
	for at := max(from, exitsBase); ; {
		n, _ := state.ReadAt(buf, at)
		n -= n % exitSize
		for i := 0; i < n; i += exitSize {
			if e := decodeExit(buf[i:]); e.pid == pid {
				return e, true
			}
		}
		if n == 0 {
			return recordedExit{}, false
		}
		at += int64(n)
	}
}

// exitOf translates a wait status.
func exitOf(ws unix.WaitStatus, at time.Time) Exit {
	e := Exit{Code: ws.ExitStatus(), Time: at}
	if ws.Signaled() {
		e.Signal = int(ws.Signal())
		e.Code = 128 + e.Signal
	}
	return e
}
