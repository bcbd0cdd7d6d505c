// Package checkpointtest is a stand-in for criu: it answers as criu does, but
// writes no memory, and what it restores is a command. It is for tests only; what
// a real criu does is shown by `make criu`.
package checkpointtest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/linux"
)

// Criu says what the stand-in does.
type Criu struct {
	// Version is what it says it is, "" for 4.2; Check a shell command that is
	// its verdict on the kernel, "" for a good one.
	Version, Check string
	// Says is written to the log of a dump or restore as an error, Fails then is
	// true; Dies ends it without an answer.
	Says        string
	Fails, Dies bool
	// Command is what a restore runs, on a terminal, and IDs the first id of the
	// host in its user namespace; 0 runs it without one.
	Command []string
	IDs     int
	// Request is a file that the last request is written to, as JSON: a Request.
	Request string
}

// Request is what the stand-in was asked for.
type Request struct {
	Type int
	// Options by their number in criu's rpc.proto.
	Numbers map[int]uint64
	Texts   map[int][]string
	// Refused is true when a notification was answered with a refusal.
	Refused bool
}

const standIn = "GANTRY_TEST_CRIU"

// Install writes the stand-in to a directory, for PATH, and returns its path. The
// test's TestMain must call Main.
func Install(t testing.TB, c Criu) (program string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if c.Version == "" {
		c.Version = "4.2"
	}
	if c.Check == "" {
		c.Check = "true"
	}
	how, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	program = filepath.Join(dir, "criu")
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in\n--version) echo 'Version: %s';;\ncheck) %s;;\nswrk) %s=%s exec %s;;\nesac\n",
		c.Version, c.Check, standIn, config, self)
	if err := errors.Join(os.WriteFile(config, how, 0o600), os.WriteFile(program, []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	return program
}

// Main turns the process into the stand-in if it was started as one.
func Main() {
	config := os.Getenv(standIn)
	if config == "" {
		return
	}
	var c Criu
	how, err := os.ReadFile(config)
	if err == nil {
		err = json.Unmarshal(how, &c)
	}
	if err == nil {
		err = c.serve(os.NewFile(3, "socket"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// The numbers are those of criu's rpc.proto.
const (
	typeDump, typeNotify              = 1, 6
	optImages, optLogFile             = 1, 10
	respType, respSuccess             = 1, 2
	respRestore, respNotify, errorMsg = 4, 5, 9
)

func (c Criu) serve(sock *os.File) error {
	buf := make([]byte, 64<<10)
	n, err := sock.Read(buf)
	if err != nil {
		return err
	}
	req := parse(buf[:n])
	images := fmt.Sprintf("/proc/%d/fd/%d", os.Getppid(), req.Numbers[optImages])
	if c.Says != "" {
		log := filepath.Join(images, req.Texts[optLogFile][0])
		text := "(00.1) Error (criu/x.c:1): " + c.Says + "\n(00.2) Error (criu/y.c:2): Restoring FAILED.\n"
		if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
			return err
		}
	}
	defer c.note(&req)
	if c.Dies {
		return errors.New("killed")
	}
	scripts := []string{"pre-dump", "post-dump"}
	if req.Type != typeDump {
		scripts = []string{"pre-restore"}
	}
	for _, s := range scripts {
		if !notify(sock, &req, s, 0, -1) {
			return answer(sock, req.Type, false, 0)
		}
	}
	if c.Fails {
		return answer(sock, req.Type, false, 0)
	}
	if req.Type == typeDump {
		return answer(sock, req.Type, true, 0)
	}
	return c.restore(sock, &req)
}

func (c Criu) note(req *Request) {
	if c.Request == "" {
		return
	}
	if data, err := json.Marshal(req); err == nil {
		_ = os.WriteFile(c.Request, data, 0o600)
	}
}

// restore runs the command on a terminal of its own.
func (c Criu) restore(sock *os.File, req *Request) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return err
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if c.IDs != 0 {
		ids := []syscall.SysProcIDMap{{HostID: c.IDs, Size: 1 << 16}}
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings, cmd.SysProcAttr.GidMappingsEnableSetgroups = ids, ids, true
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	if !notify(sock, req, "orphan-pts-master", 0, int(master.Fd())) || !notify(sock, req, "post-restore", pid, -1) {
		return errors.Join(cmd.Process.Kill(), answer(sock, req.Type, false, 0))
	}
	return answer(sock, req.Type, true, pid)
}

func number(b []byte, field int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(field)<<3), v)
}

func text(b []byte, field int, v []byte) []byte {
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(field)<<3|2), uint64(len(v)))
	return append(b, v...)
}

func answer(sock *os.File, typ int, success bool, pid int) error {
	ok := uint64(0)
	if success {
		ok = 1
	}
	b := text(number(number(nil, respType, uint64(typ)), respSuccess, ok), errorMsg, []byte("the first error"))
	_, err := sock.Write(text(b, respRestore, number(nil, 1, uint64(pid))))
	return err
}

// notify reports whether criu may go on.
func notify(sock *os.File, req *Request, script string, pid, fd int) bool {
	inner := number(text(nil, 1, []byte(script)), 2, uint64(pid))
	b := text(number(number(nil, respType, typeNotify), respSuccess, 1), respNotify, inner)
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	buf := make([]byte, 64)
	if unix.Sendmsg(int(sock.Fd()), b, rights, nil, 0) != nil {
		return false
	}
	n, err := linux.RetryEINTR(func() (int, error) { return unix.Read(int(sock.Fd()), buf) })
	if err != nil || n < 4 || buf[3] == 0 { // two numbers of one byte each
		req.Refused = true
		return false
	}
	return true
}

// parse reads a criu_req of the test's own making.
func parse(b []byte) Request {
	req := Request{Numbers: map[int]uint64{}, Texts: map[int][]string{}}
	each(b, func(field int, v uint64, inner []byte) {
		if inner == nil {
			req.Type = int(v)
			return
		}
		each(inner, func(field int, v uint64, inner []byte) {
			if inner == nil {
				req.Numbers[field] = v
				return
			}
			req.Texts[field] = append(req.Texts[field], string(inner))
		})
	})
	return req
}

func each(b []byte, visit func(field int, v uint64, inner []byte)) {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		v, m := binary.Uvarint(b[n:])
		b = b[n+m:]
		if key&7 == 2 {
			visit(int(key>>3), 0, b[:v:v])
			b = b[v:]
			continue
		}
		visit(int(key>>3), v, nil)
	}
}
