package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
	"golang.org/x/sys/unix"
)

// waitStatus returns how a process has ended and leaves it a zombie, so that
// its end can be told to others before it is taken. It reports false when the
// process is no child (any more).
func waitStatus(pidfd int) (Exit, bool, error) {
	var info [128]byte // siginfo_t
	_, err := linux.RetryEINTR(func() (int, error) {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd), uintptr(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WNOWAIT|unix.WALL, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		return 0, nil
	})
	if errors.Is(err, unix.ECHILD) {
		return Exit{}, false, nil
	}
	if err != nil {
		return Exit{}, false, os.NewSyscallError("waitid", err)
	}
	const offCode, offStatus, exited = 8, 24, 1 // CLD_EXITED
	e := Exit{Code: int(int32(binary.LittleEndian.Uint32(info[offStatus:]))), Time: time.Now()}
	if binary.LittleEndian.Uint32(info[offCode:]) != exited {
		e.Signal = e.Code
		e.Code += 128
	}
	return e, true, nil
}

// pidfdExit asks the kernel how a process ended that was somebody else's child
// and is reaped (PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15).
func pidfdExit(pidfd int) (unix.WaitStatus, bool) {
	const (
		size     = 64 // PIDFD_INFO_SIZE_VER0
		getInfo  = 3<<30 | size<<16 | 0xff<<8 | 11
		infoExit = 1 << 3
		offCode  = 60
	)
	var info [size]byte
	binary.LittleEndian.PutUint64(info[:], infoExit)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), getInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || binary.LittleEndian.Uint64(info[:])&infoExit == 0 {
		return 0, false
	}
	return unix.WaitStatus(binary.LittleEndian.Uint32(info[offCode:])), true
}

// zombieExit reads how a process ended that nobody has reaped yet, from field
// 52 of /proc/PID/stat (proc_pid_stat(5)).
func zombieExit(p Process) (unix.WaitStatus, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
	if err != nil {
		return 0, false
	}
	return parseZombie(text, p.StartTime)
}

func parseZombie(stat []byte, started uint64) (unix.WaitStatus, bool) {
	// Fields from the third on: the second is a name that may hold anything.
	const state, startTime, exitCode = 0, 22 - 3, 52 - 3
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= exitCode || string(fields[state]) != "Z" || string(fields[startTime]) != strconv.FormatUint(started, 10) {
		return 0, false
	}
	ws, err := strconv.ParseUint(string(fields[exitCode]), 10, 16)
	return unix.WaitStatus(ws), err == nil
}

const (
	// exitPoll is how often the guard's records are looked at for an exit that
	// must appear there, and exitLimit for how long.
	exitPoll  = time.Millisecond
	exitLimit = 5 * time.Second
)

// awaitExit learns how a process has ended whose parent the guard is or was:
// from the guard's records, or from the kernel, of a zombie or, since Linux
// 6.15, also of one that is reaped.
func (w *watch) awaitExit(p *proc) {
	tick := time.NewTicker(exitPoll)
	defer tick.Stop()
	for deadline := time.Now().Add(exitLimit); ; {
		if e, ok := w.foreignExit(p); ok {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.exited(p, e)
			return
		}
		if time.Now().After(deadline) {
			break
		}
		select {
		case <-tick.C:
		case <-w.done:
			return // the next runner will do it
		}
	}
	w.log.Error().Str(logging.Container, p.id).Int("pid", p.process.Pid).Msg("exit status is lost: the guard was killed and the kernel does not know")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exited(p, lostExit())
}

func (w *watch) foreignExit(p *proc) (Exit, bool) {
	if w.guard != nil {
		if r, ok := findExit(w.guard.state, p.process.Pid, p.exitsFrom); ok {
			return exitOf(r.status, r.time), true
		}
	}
	// Without that record the parent is another: the guard was killed too.
	ws, ok := pidfdExit(p.fd)
	if !ok {
		ws, ok = zombieExit(p.process)
	}
	return exitOf(ws, time.Now()), ok
}

// park writes down for the next runner what is to be known of p. It needs mu.
func (w *watch) park(p *proc) error {
	r := parked{
		ID: p.id, Process: p.process, Birth: p.birth, Slot: p.slot, ExitsFrom: p.exitsFrom,
		Log: p.logPath, Limit: p.logLimit, Foreign: p.foreign,
	}
	var fds []int
	if p.exited {
		r.Exit = &p.exit
	} else {
		fds = append(fds, p.fd)
		if p.console != nil && p.console.master >= 0 {
			r.Console, fds = true, append(fds, p.console.master)
		}
	}
	if err := w.guard.queue.put(&r, fds...); err != nil {
		return err
	}
	p.birth = r.Birth
	return nil
}

// forget tells the next runner that an id is free. It needs mu.
func (w *watch) forget(p *proc) {
	if w.guard == nil {
		return
	}
	if err := w.guard.queue.put(&parked{ID: p.id, Forgotten: true}); err != nil {
		w.log.Error().Err(err).Str(logging.Container, p.id).Msg("forgotten process stays parked")
	}
	w.tidy()
}

const (
	// fewParked are parked anew at once (8 us each).
	fewParked = 32
	// tidyShare bounds the share of time that parking anew takes otherwise.
	tidyShare = 50
)

// tidy keeps the queue short, and closes the terminals in it that have ended:
// as long as a master is open its device exists, and what has it open does not
// hang up. It needs mu.
func (w *watch) tidy() {
	if w.guard == nil {
		return
	}
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	switch {
	case w.guard.queue.crowded(len(w.l.procs)), w.stale && len(w.l.procs) <= fewParked:
		w.compact()
	case w.stale && w.later == nil:
		w.later = time.AfterFunc(tidyShare*w.took, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.l.mu.Lock()
			defer w.l.mu.Unlock()
			if w.later != nil {
				w.compact()
			}
		})
	}
}

// compact parks everything anew. It needs mu and Local.mu.
func (w *watch) compact() {
	began := time.Now()
	if w.later != nil {
		w.later.Stop()
	}
	w.stale, w.later = false, nil
	defer func() { w.took = time.Since(began) }()
	now := w.guard.exits()
	used := now
	err := w.guard.queue.compact(func() error {
		for _, p := range w.l.procs {
			if p.birth == 0 {
				continue // on its way
			}
			if !p.exited && alive(p.fd) {
				p.exitsFrom = now // no record before is its
			}
			if !p.exited {
				used = min(used, p.exitsFrom)
			}
			if err := w.park(p); err != nil {
				return fmt.Errorf("process %s: %w", p.id, err)
			}
		}
		return nil
	})
	if err != nil {
		w.log.Error().Err(err).Msg("parked records are not tidied up")
		return
	}
	w.guard.dropExits(used)
}

// alive reports whether the process of a pidfd has not ended.
func alive(pidfd int) bool {
	list := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := linux.RetryEINTR(func() (int, error) { return unix.Poll(list, 0) })
	return err == nil && n == 0
}
