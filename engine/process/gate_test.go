package process

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestExecGolden shows the program of an exec, and of hooks and a gate.
func TestExecGolden(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	umask, personality := uint32(0o27), uint32(8)
	plain := &Spec{Join: "first", Args: []string{"/bin/true"}, Seccomp: []SockFilter{{Code: 6}}, Terminal: true}
	full := &Spec{
		Join: "first", Args: []string{"app"}, Cwd: "/srv", UID: 7, GID: 8, Umask: &umask, Personality: &personality,
		CgroupFiles: []*os.File{null}, Stdio: [3]*os.File{null}, Preserve: []*os.File{null, null}, Gate: null,
		Seccomp: []SockFilter{{Code: 6}}, SeccompFlags: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, SeccompListener: null, NoNewPrivs: true,
		Scheduler: &Scheduler{Policy: "SCHED_BATCH"}, IOPriority: &IOPriority{Class: "IOPRIO_CLASS_IDLE"},
		CPUAffinity: "0", FinalAffinity: "0-1",
		Sets: &CapabilitySets{
			Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"},
			Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"},
		},
	}
	for name, spec := range map[string]*Spec{"exec.golden": plain, "exec-full.golden": full} {
		p, err := compileExec(spec, facts{}, &target{pid: 42, pidfd: null, flags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, []byte(p.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), p.String()); diff != "" {
			t.Error(name, diff)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for list, want := range map[string][]int{"0": {0}, "3,1-2,2": {1, 2, 3}, "8191": {8191}} {
		if got, err := parseCPUs(list); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
	for _, list := range []string{"", ",", "1,", "-1", "1-", "2-1", "8192", "a", "1-2-3", " 1", "1\n", "99999999999999999999"} {
		if got, err := parseCPUs(list); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
}

func TestLabelsNeedTheirModule(t *testing.T) {
	for _, spec := range []*Spec{{AppArmorProfile: "x"}, {SELinuxLabel: "x"}} {
		spec.Join, spec.Args = "first", []string{"true"}
		if _, err := compileExec(spec, facts{}, &target{}); !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("%+v: %v", spec, err)
		}
		able := facts{attrFacts: attrFacts{apparmor: true, selinux: true}}
		if _, err := compileExec(spec, able, &target{}); err != nil {
			t.Errorf("%+v: %v", spec, err)
		}
	}
}

func TestGateNotesArePlain(t *testing.T) {
	c := &compiler{Program: newProgram(), spec: &Spec{
		Args: []string{"app"}, UID: 5, Seccomp: []SockFilter{{Code: 6}},
		SeccompFlags: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_LOG,
	}}
	c.spec.Hooks.StartContainer = []Hook{{Path: "/h"}}
	c.spec.Hooks.State = func(string, int) []byte { return []byte(`{"id":"x"}`) }
	a, b := pair(t)
	if _, err := a.Write(c.gateNote()); err != nil {
		t.Fatal(err)
	}
	note, pid, _, err := readGateNote(b)
	if err != nil || pid != os.Getpid() || note.Command != "app" || len(note.Hooks) != 1 || note.Rights.UID != 5 ||
		note.Rights.SeccompFlags != unix.SECCOMP_FILTER_FLAG_LOG {
		t.Errorf("%+v of %d, %v", note, pid, err)
	}
}

// pair is a connected pair whose second end asks for credentials.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		conns[i], _ = c.(*net.UnixConn)
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}

// FuzzGate: whatever a child says, the one who opens its gate comes back with
// an error, and starts nothing.
func FuzzGate(f *testing.F) {
	frame := func(s string) []byte { return append(binary.LittleEndian.AppendUint32(nil, uint32(len(s))), s...) }
	f.Add(frame(`{"Command":"x"}`))
	f.Add(frame(`{"Command":"x","Hooks":[{"Path":"relative"}],"State":7}`))
	f.Add([]byte{255, 255, 255, 255})
	f.Add(append(frame(`{}`), make([]byte, recordSize)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := pair(t)
		if len(data) > 64<<10 {
			return
		}
		if _, err := a.Write(data); err != nil {
			t.Fatal(err)
		}
		_ = a.CloseWrite()
		note, _, files, err := readGateNote(b)
		if len(files) > 0 {
			t.Error("files out of nothing")
		}
		if err == nil {
			_ = gateOutcome(b, note.Command)
		}
	})
}
