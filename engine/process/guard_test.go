package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

func TestGuardCommands(t *testing.T) {
	f, err := newGuardState([]string{"/bin/a", "", "c d"}, []string{"X=1", guardName + "=old"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	mem, err := unix.Mmap(int(f.Fd()), 0, exitsBase, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	check := func(at int, want ...string) {
		t.Helper()
		argv, env, err := commandAt(mem, at)
		if got := append(argv, env...); err != nil || !slices.Equal(got, append(want, guardVariable)) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	check(offCommand, "/bin/a", "", "c d", "X=1")
	if _, _, err := commandAt(mem, offTrial); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("nothing is on trial: %v", err)
	}
	confirmCommand(mem)
	for i := range 5 {
		next := fmt.Sprintf("/bin/b%d", i)
		if err := tryCommand(mem, []string{next}, nil); err != nil {
			t.Fatal(err)
		}
		check(offTrial, next)
		if i%2 == 0 {
			confirmCommand(mem)
			check(offCommand, next)
		} else {
			check(offCommand, fmt.Sprintf("/bin/b%d", i-1))
		}
	}
	for _, argv := range [][]string{nil, {""}, {"a\x00b"}, {strings.Repeat("x", commandSize)}} {
		if err := tryCommand(mem, argv, nil); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%.10q: %v", argv, err)
		}
	}
	check(offCommand, "/bin/b4")
}

func FuzzGuardCommand(f *testing.F) {
	block, words, err := encodeCommand(0, []string{"/bin/x", "y"}, []string{"A=B"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(words, block)
	f.Fuzz(func(_ *testing.T, words, block []byte) {
		state := make([]byte, exitsBase)
		copy(state[offCommand:offTrial], words)
		copy(state[offCommands:], block)
		_, _, _ = commandAt(state, offCommand)
	})
}

// The guard restarts its command, records ends, and takes the orphans.
func TestGuardLoop(t *testing.T) {
	dir := t.TempDir()
	lock, err := os.Create(dir + "/lock")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	// The first two lives leave an orphan; the third stays.
	script := `cd ` + dir + `; echo x >> lives; n=$(wc -l < lives)
		if [ $n -lt 3 ]; then { while ! [ -e go ]; do sleep 0.01; done; exit $n; } & exit 7; fi
		touch ready; exec sleep 1000`
	g, err := StartGuard(t.Context(), GuardOptions{Command: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}, Output: lock, Lock: lock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.Close()); err != nil {
			t.Error(err)
		}
	})
	await(t, func() bool { _, err := os.Stat(dir + "/ready"); return err == nil })
	children := guardChildren(t, g.Pid)
	if len(children) != 3 {
		t.Errorf("children %v, want two orphans and the command", children)
	}
	if ended, err := g.CommandEnded(); err != nil || !ended {
		t.Errorf("%t, %v", ended, err)
	}
	if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return len(guardChildren(t, g.Pid)) == 1 })
	var codes []int
	data := make([]byte, 100*exitSize)
	n, _ := g.state.ReadAt(data, exitsBase)
	for i := 0; i < n; i += exitSize {
		e := decodeExit(data[i:])
		codes = append(codes, exitOf(e.status, e.time).Code)
		if age := time.Since(e.time); age < 0 || age > time.Minute {
			t.Errorf("ended %v ago", age)
		}
	}
	slices.Sort(codes)
	if !slices.Equal(codes, []int{1, 2, 7, 7}) {
		t.Errorf("recorded codes %v", codes)
	}
	last := guardChildren(t, g.Pid)[0]
	t.Cleanup(func() { _ = unix.Kill(last, unix.SIGKILL) })
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.Pid))
	if err != nil || !strings.HasPrefix(string(status), "Name:\tgantry-guard\n") {
		t.Errorf("%v, %s", err, status)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

func TestGuardOfABadCommand(t *testing.T) {
	for _, command := range [][]string{nil, {"sh"}, {"/no/such/command"}, {os.DevNull}} {
		g, err := StartGuard(t.Context(), GuardOptions{Command: command, Output: os.Stderr, Lock: os.Stderr})
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", command, err)
		}
		if err == nil {
			_ = g.Kill()
		}
	}
}

func guardChildren(t *testing.T, pid int) (list []int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range strings.Fields(string(text)) {
		var n int
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
		list = append(list, n)
	}
	return list
}

// await polls.
func await(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !done(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("still waiting")
		}
	}
}

func TestExitsOfOthers(t *testing.T) {
	for _, tt := range []struct {
		script string
		want   Exit
	}{{"exit 9", Exit{Code: 9}}, {"kill -TERM $$", Exit{Code: 143, Signal: 15}}} {
		cmd := exec.Command("/bin/sh", "-c", tt.script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		started, err := linux.StartTime(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer closeFds(fd)
		await(t, func() bool { return !alive(fd) })
		e, child, err := waitStatus(fd)
		if e.Time = (time.Time{}); err != nil || !child || e != tt.want {
			t.Errorf("%s: %+v, %t, %v", tt.script, e, child, err)
		}
		p := Process{Pid: cmd.Process.Pid, StartTime: started}
		if ws, ok := zombieExit(p); !ok || exitOf(ws, time.Time{}) != tt.want {
			t.Errorf("%s: zombie %v, %t", tt.script, ws, ok)
		}
		if _, ok := zombieExit(Process{Pid: p.Pid, StartTime: started + 1}); ok {
			t.Errorf("%s: of another process", tt.script)
		}
		if _, ok := pidfdExit(fd); ok {
			t.Errorf("%s: it is not reaped yet", tt.script)
		}
		_ = cmd.Wait()
		if _, ok := zombieExit(p); ok {
			t.Errorf("%s: it is gone", tt.script)
		}
		if ws, ok := pidfdExit(fd); ok && exitOf(ws, time.Time{}) != tt.want {
			t.Errorf("%s: %v", tt.script, ws)
		}
		if _, child, err := waitStatus(fd); child || err != nil {
			t.Errorf("%s: reaped: %t, %v", tt.script, child, err)
		}
	}
}

func FuzzParseZombie(f *testing.F) {
	f.Add([]byte("12 (a) b) Z 1 12 12 0 -1 4227084 0 0 0 0 0 0 0 0 20 0 1 0 77 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 9\n"), uint64(77))
	f.Fuzz(func(t *testing.T, text []byte, started uint64) {
		if ws, ok := parseZombie(text, started); ok && uint32(ws) > 0xffff {
			t.Errorf("%#x", uint32(ws))
		}
	})
}

func TestFindExit(t *testing.T) {
	f, err := newGuardState([]string{"/x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const n = 1000
	for i := range n {
		b := binary.LittleEndian.AppendUint64(nil, uint64(i%500+1))
		b = binary.LittleEndian.AppendUint64(b, uint64(i%7)<<8)
		if _, err := f.Write(append(b, make([]byte, 16)...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		pid   int
		from  int64
		index int // -1 for none
	}{
		{1, 0, 0},
		{1, exitsBase, 0},
		{1, exitsBase + exitSize, 500},
		{500, exitsBase, 499},
		{500, exitsBase + 500*exitSize, 999},
		{501, exitsBase, -1},
		{1, exitsBase + 501*exitSize, -1},
		{1, 1 << 40, -1},
	} {
		e, ok := findExit(f, tt.pid, tt.from)
		if ok != (tt.index >= 0) || ok && syscall.WaitStatus(e.status).ExitStatus() != tt.index%7 {
			t.Errorf("%+v: %+v, %t", tt, e, ok)
		}
	}
}
