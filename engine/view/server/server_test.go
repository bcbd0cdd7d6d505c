package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/view/server"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

const mib = 1 << 20

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until polls; it fails when something is broken, not when it is slow.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatal(what)
}

// fixture is a host with a view, an engine on it and the image busybox.
type fixture struct {
	*engine.Engine
	host *enginetest.Host
	dir  string
}

func (f *fixture) options(build string) server.EnsureOptions {
	return server.EnsureOptions{
		Dir: f.dir, Build: build, LogFile: f.dir + ".log",
		Command: []string{os.Args[0], serveArg, f.dir, f.host.Group(), build},
	}
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	h := enginetest.NewHost(t)
	f := &fixture{host: h, dir: filepath.Join(h.Root, "view")}
	self, err := filepath.Abs(os.Args[0])
	check(t, err)
	os.Args[0] = self
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(f.dir + ".log")
			t.Logf("server: %s", text)
		}
	})
	v, err := server.Ensure(t.Context(), f.options("one"))
	check(t, err)
	t.Cleanup(func() {
		check(t, v.Close(context.WithoutCancel(t.Context()), true))
		check(t, server.Remove(f.dir))
		if pid := f.serverPid(); pid != 0 {
			t.Errorf("the server %d outlives its mount", pid)
		}
	})
	h.View = engine.GuestView{Dir: f.dir, Processors: true}
	e, done := h.Engine(t)
	t.Cleanup(done)
	f.Engine = e
	_, err = e.Import(t.Context(), engine.ImportRequest{Ref: "busybox", Content: bytes.NewReader(enginetest.Busybox(t)), ContainerFormat: "bare", DiskFormat: "raw"})
	check(t, err)
	return f
}

// serverPid finds the server by its command line, 0 for none.
func (f *fixture) serverPid() int {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		text, _ := os.ReadFile(name)
		if words := strings.Split(string(text), "\x00"); len(words) > 3 && words[1] == serveArg && words[2] == f.dir {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			return pid
		}
	}
	return 0
}

func (f *fixture) run(t *testing.T, id engine.ContainerID, l cgroup.Limits) {
	t.Helper()
	l.Pids = 100
	check(t, f.Run(t.Context(), engine.CreateRequest{ID: id, Image: "busybox", Limits: l},
		engine.StartRequest{Args: []string{"/sbin/init"}, ConsoleBytes: 1 << 16}))
	t.Cleanup(func() { check(t, f.Delete(context.WithoutCancel(t.Context()), id)) })
}

// said is what a shell in a container says.
func (f *fixture) said(t *testing.T, id engine.ContainerID, script string) string {
	t.Helper()
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	s, err := f.Exec(t.Context(), id, engine.ExecRequest{Args: []string{"/bin/sh", "-c", script}, Stdio: [3]*os.File{nil, w, w}})
	check(t, errors.Join(err, w.Close()))
	out, err := io.ReadAll(r)
	check(t, err)
	_, err = f.ExecWait(t.Context(), id, s.ID)
	check(t, err)
	return strings.TrimSpace(string(out))
}

func vcpus(n, mb int64) cgroup.Limits {
	return cgroup.Limits{MemoryBytes: mb * mib, SwapBytes: -1, CPUPeriod: 100000, CPUQuota: n * 100000, CPUShares: n * 1024}
}

func hostCPUs(t *testing.T) int {
	t.Helper()
	var set unix.CPUSet
	check(t, unix.SchedGetaffinity(0, &set))
	return set.Count()
}

// Everything by which programs count agrees, and follows the limits.
func TestGuest(t *testing.T) {
	f := newFixture(t)
	f.run(t, "c", vcpus(1, 96))
	counts := func(cpus int, mb int64) {
		t.Helper()
		online := "0"
		if cpus > 1 {
			online = fmt.Sprintf("0-%d", cpus-1)
		}
		for script, want := range map[string]string{
			"/bin/busybox nproc":                                                             strconv.Itoa(cpus),
			"cat /sys/devices/system/cpu/online":                                             online,
			"cat /sys/devices/system/cpu/present":                                            online,
			"/bin/busybox grep -c ^processor /proc/cpuinfo":                                  strconv.Itoa(cpus),
			"/bin/busybox grep -c '^cpu[0-9]' /proc/stat":                                    strconv.Itoa(cpus),
			"ls -d /sys/devices/system/cpu/cpu* | /bin/busybox wc -l":                        strconv.Itoa(cpus),
			"cat /sys/devices/system/node/node0/cpulist":                                     online,
			"/bin/busybox awk '/^MemTotal/{print $2/1024}' /proc/meminfo":                    strconv.FormatInt(mb, 10),
			"/bin/busybox awk '/^SwapTotal/{print $2}' /proc/meminfo":                        "0",
			"/bin/busybox awk '/MemTotal/{print $4}' /sys/devices/system/node/node0/meminfo": strconv.FormatInt(mb*1024, 10),
			"/bin/busybox wc -l </proc/swaps":                                                "1",
			"/bin/busybox awk '{print $3}' /proc/diskstats":                                  "vda",
			"cat /sys/devices/system/cpu/cpu0/topology/core_id":                              "0",
			fmt.Sprintf("ls /sys/devices/system/cpu/cpu%d 2>/dev/null", cpus):                "",
		} {
			until(t, fmt.Sprintf("%s does not become %q", script, want), func() bool { return f.said(t, "c", script) == want })
		}
	}
	counts(1, 96)
	cpus, mb, quota := min(2, hostCPUs(t)), int64(160), int64(200000)
	_, err := f.Update(t.Context(), "c", engine.LimitsChange{MemoryBytes: ptr(mb * mib), CPUQuota: &quota})
	check(t, err)
	counts(cpus, mb)
	if st, err := f.State(t.Context(), "c"); err == nil {
		var set unix.CPUSet
		check(t, unix.SchedGetaffinity(st.Process.Pid, &set))
		if set.Count() != cpus {
			t.Errorf("the first process runs on %d processors, want %d", set.Count(), cpus)
		}
	}
	// the clocks are the container's: programs that combine uptime with start
	// times of processes get what is true
	var host unix.Timespec
	check(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &host))
	text := f.said(t, "c", "cat /proc/uptime; /bin/busybox awk '{print $22}' /proc/1/stat; /bin/busybox awk '/btime/{print $2}' /proc/stat")
	words := strings.Fields(text)
	up, err := strconv.ParseFloat(words[0], 64)
	check(t, err)
	if st, err := f.State(t.Context(), "c"); err != nil || up < 0 || up > time.Since(st.Started).Seconds()+1 || up > float64(host.Sec) {
		t.Errorf("uptime %s of a container that was started at %v (%v)", text, st.Started, err)
	}
	if started, err := strconv.Atoi(words[2]); err != nil || started > int(up*100)+1 {
		t.Errorf("the first process was started at %s, after uptime %s", words[2], words[0])
	}
	if btime, err := strconv.ParseInt(words[3], 10, 64); err != nil || time.Since(time.Unix(btime, 0)).Seconds() < up-2 {
		t.Errorf("btime %s", words[3])
	}
	if got := strings.Fields(f.said(t, "c", "cat /proc/loadavg")); len(got) != 5 || !strings.Contains(got[3], "/") {
		t.Errorf("load %q", got)
	}
}

func ptr[T any](v T) *T { return &v }

// A guest can do nothing to the files, sees nobody else's, and the host's root is
// not told anything either.
func TestGuestsAreApart(t *testing.T) {
	f := newFixture(t)
	f.run(t, "a", vcpus(1, 64))
	f.run(t, "b", vcpus(2, 128))
	for id, mb := range map[engine.ContainerID]string{"a": "65536", "b": "131072"} {
		if got := f.said(t, id, "/bin/busybox awk '/MemTotal/{print $2}' /proc/meminfo"); got != mb {
			t.Errorf("%s has %s", id, got)
		}
		for _, script := range []string{
			"echo 1 >/proc/meminfo", "echo 0 >/sys/devices/system/cpu/cpu0/online", "/bin/busybox rm -f /sys/devices/system/cpu/online",
			"/bin/busybox chmod 777 /proc/meminfo", "/bin/busybox umount /proc/meminfo", "/bin/busybox mkdir /sys/devices/system/cpu/x",
			"/bin/busybox mount -o remount,rw /proc/meminfo", "cat /proc/status.", "ls /sys/devices/system/cpu/../cpu/..../status",
		} {
			if got := f.said(t, id, script+" && echo done"); strings.Contains(got, "done") {
				t.Errorf("%s: %s: %s", id, script, got)
			}
		}
		// read to the end in small pieces: one text
		if got := f.said(t, id, "/bin/busybox dd if=/proc/stat bs=7 2>/dev/null | /bin/busybox tail -n1"); !strings.HasPrefix(got, "softirq 0") {
			t.Errorf("in small pieces the last line of stat is %q", got)
		}
	}
	if text, err := os.ReadFile(filepath.Join(f.dir, "nobody", "meminfo")); !errors.Is(err, unix.EIO) {
		t.Errorf("the file of no guest says %q, %v", text, err)
	}
	if list, err := os.ReadDir(filepath.Join(f.dir, "nobody", "cpu")); err != nil || slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.IsDir() }) {
		t.Errorf("the directory of no guest has %v, %v", list, err)
	}
	mounts := f.said(t, "a", "cat /proc/self/mountinfo")
	if strings.Contains(mounts, f.host.Root) {
		t.Errorf("mounts tell paths of the host: %s", mounts)
	}
	// what hides other things is where it was
	if got := f.said(t, "a", "cat /proc/timer_list /proc/keys /proc/interrupts 2>/dev/null | /bin/busybox wc -c; ls -A /sys/firmware"); got != "0" {
		t.Errorf("masked paths say %q", got)
	}
}

// kill ends the server as it may end any time, and returns when another answers.
func (f *fixture) kill(t *testing.T) {
	t.Helper()
	pid := 0
	until(t, "no server", func() bool { pid = f.serverPid(); return pid != 0 })
	p, err := linux.PidfdOpen(pid)
	check(t, err)
	defer p.Close()
	check(t, linux.PidfdSignal(p, int(unix.SIGKILL)))
	check(t, linux.AwaitPidfd(p))
	until(t, "no other server", func() bool { next := f.serverPid(); return next != 0 && next != pid })
}

// Whoever is killed, no read fails, and each comes to its end.
func TestServerIsReplaced(t *testing.T) {
	f := newFixture(t)
	f.run(t, "c", vcpus(1, 64))
	const loop = `i=0; while [ ! -e /tmp/stop ]; do
	set -- $(cat /proc/meminfo) || { echo failed $i; exit 1; }
	[ "$2" = 65536 ] || { echo "said $*"; exit 1; }
	cat /sys/devices/system/cpu/online >/dev/null || { echo failed; exit 1; }
	i=$((i+1)); done; echo fine $i`
	results := make(chan string, 3)
	for range cap(results) {
		go func() { results <- f.said(t, "c", loop) }()
	}
	for range 5 {
		f.kill(t)
	}
	// another program takes over
	v, err := server.Ensure(t.Context(), f.options("two"))
	check(t, err)
	check(t, v.Close(t.Context(), false))
	// the same one stays
	pid := f.serverPid()
	v, err = server.Ensure(t.Context(), f.options("two"))
	check(t, err)
	check(t, v.Close(t.Context(), false))
	if now := f.serverPid(); now != pid {
		t.Errorf("a server of the same program was replaced: %d, %d", pid, now)
	}
	// the guard is killed: the server becomes one
	p, err := linux.PidfdOpen(parentOf(t, pid))
	check(t, err)
	check(t, linux.PidfdSignal(p, int(unix.SIGKILL)))
	check(t, p.Close())
	until(t, "no server after the guard's end", func() bool { now := f.serverPid(); return now != 0 && now != pid && parentOf(t, now) == pid })
	f.said(t, "c", "echo >/tmp/stop")
	for range cap(results) {
		if got := <-results; !strings.HasPrefix(got, "fine ") || got == "fine 0" {
			t.Errorf("a reader says %q", got)
		}
	}
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "PPid:")
	parent, _ := strconv.Atoi(strings.Fields(rest)[0])
	return parent
}

func TestEnsure(t *testing.T) {
	if v, err := server.Ensure(t.Context(), server.EnsureOptions{Dir: "relative"}); v != nil || !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a relative directory: %v %v", v, err)
	}
	dir := filepath.Join(t.TempDir(), "view")
	v, err := server.Ensure(t.Context(), server.EnsureOptions{Dir: dir, Command: []string{"/bin/false"}})
	if v != nil || err == nil {
		t.Errorf("a server that ends at once: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	if strings.Contains(string(mounts), dir) {
		t.Error("a mount is left")
	}
	check(t, server.Remove(dir))
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
