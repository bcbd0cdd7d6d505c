//go:build criu

package engine_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// These tests need a real criu in PATH (make criu).

// confinement is what the kernel says of a first process's rights: everything
// that must be after a restore what it was, with the host's numbers left out.
func confinement(t *testing.T, pid int) map[string][]string {
	t.Helper()
	lines := func(name string) []string {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		check(t, err)
		return strings.Split(strings.TrimSpace(string(data)), "\n")
	}
	out := map[string][]string{}
	for _, name := range []string{"cgroup", "uid_map", "gid_map", "limits", "oom_score_adj", "personality"} {
		out[name] = lines(name)
	}
	kept := regexp.MustCompile(`^(Name|Umask|Uid|Gid|Groups|Threads|Sig\w+|Shd\w+|Cap\w+|NoNewPrivs|Seccomp\w*|Cpus_allowed):`)
	out["status"] = slices.DeleteFunc(lines("status"), func(l string) bool { return !kept.MatchString(l) || strings.HasPrefix(l, "SigQ") })
	for _, line := range lines("mountinfo") {
		f := strings.Fields(line) // proc_pid_mountinfo(5)
		out["mounts"] = append(out["mounts"], strings.Join([]string{f[4], f[5], f[7]}, " "))
	}
	slices.Sort(out["mounts"])
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	check(t, err)
	for _, fd := range fds {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		check(t, err)
		out["files"] = append(out["files"], fd.Name()+" "+to)
	}
	return out
}

// counting is a first process with handlers, a child, an open file that is
// deleted and one in /dev/shm.
const counting = `n=0; exec 5>/root/gone; rm /root/gone; echo kept >&5; exec 6>/dev/shm/x; echo shared >&6
trap 'n=$((n+1)); echo counted $n' USR1; trap 'echo ended $n; exit 7' TERM
echo ready; while :; do sleep 1000 & wait $!; done`

func TestCriu(t *testing.T) {
	e, done := restoring(t)
	defer done()
	ctx := t.Context()
	check(t, e.Stop(ctx, "c", engine.StopRequest{}))
	r := initRequest
	r.Args = []string{"/bin/sh", "-c", counting}
	check(t, e.Start(ctx, "c", r))
	console(t, e, "c", "ready")
	check(t, e.Kill(ctx, "c", int(unix.SIGUSR1)))
	console(t, e, "c", "counted 1")
	before := status(t, e, engine.StatusRunning)
	was := confinement(t, before.Process.Pid)
	kept := filepath.Join(t.TempDir(), "kept")
	check(t, e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: kept, LeaveRunning: true}))
	check(t, e.Kill(ctx, "c", int(unix.SIGUSR1)))
	console(t, e, "c", "counted 2")
	dir := filepath.Join(t.TempDir(), "checkpoint")
	check(t, e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: dir}))
	status(t, e, engine.StatusStopped)
	for i := range 2 { // a checkpoint lasts
		check(t, e.Restore(ctx, "c", engine.RestoreRequest{Dir: dir, ConsoleBytes: 1 << 16}))
		after := status(t, e, engine.StatusRunning)
		if diff := cmp.Diff(was, confinement(t, after.Process.Pid)); diff != "" {
			t.Errorf("confined otherwise:\n%s", diff)
		}
		apart(t, after.Process.Pid)
		// the first time nobody had asked for it before
		path, err := e.NetNS(ctx, "c")
		check(t, err)
		var pinned, its unix.Stat_t
		check(t, errors.Join(unix.Stat(path, &pinned), unix.Stat(fmt.Sprintf("/proc/%d/ns/net", after.Process.Pid), &its)))
		if pinned.Ino != its.Ino {
			t.Error("another network namespace is pinned")
		}
		check(t, e.Kill(ctx, "c", int(unix.SIGUSR1)))
		seen(t, e, "counted 3", i+1)
		if out, _ := execOutput(t, e, engine.ExecRequest{Args: sh("cat /dev/shm/x; ls -d /root/gone; id -u; hostname; cat /proc/1/comm")}); out != "shared\nls: /root/gone: No such file or directory\n0\nguest\nsh\n" {
			t.Errorf("inside: %q", out)
		}
		top, err := e.Top(ctx, "c")
		check(t, err)
		if use, err := e.Stats(ctx, "c"); err != nil || use.Pids != int64(len(top)) || use.MemoryBytes <= 0 {
			t.Errorf("stats %+v, %v of %d processes", use, err, len(top))
		}
		check(t, e.Stop(ctx, "c", engine.StopRequest{Timeout: 20 * time.Second}))
		seen(t, e, "ended 3", i+1)
		if s := status(t, e, engine.StatusStopped); !s.Exit.Known || s.Exit.Code != 7 {
			t.Errorf("exit: %+v", s.Exit)
		}
	}
	check(t, e.Restore(ctx, "c", engine.RestoreRequest{Dir: kept}))
	check(t, e.Kill(ctx, "c", int(unix.SIGUSR1)))
	seen(t, e, "counted 2", 2)
	check(t, e.Stop(ctx, "c", engine.StopRequest{}))
	check(t, e.Start(ctx, "c", initRequest))
	check(t, e.Delete(ctx, "c"))
}

// seen waits until the console has said a text so often.
func seen(t *testing.T, e *engine.Engine, text string, times int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 12000 {
		out, err := e.Console(t.Context(), "c", -1)
		check(t, err)
		if strings.Count(string(out), text) == times {
			return
		}
		<-tick.C
	}
	t.Fatalf("the console has not said %q %d times", text, times)
}

// apart checks that a process shares no namespace with this one, and that its
// pinned namespaces are its own.
func apart(t *testing.T, pid int) {
	t.Helper()
	for _, kind := range []string{"user", "pid", "mnt", "net", "ipc", "uts", "time", "cgroup"} {
		mine, err := os.Readlink("/proc/self/ns/" + kind)
		check(t, err)
		its, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/" + kind)
		check(t, err)
		if mine == its {
			t.Errorf("it is in the host's %s namespace", kind)
		}
	}
}

// What criu cannot write is refused with its reason, and goes on.
func TestCriuRefuses(t *testing.T) {
	e, done := restoring(t)
	defer done()
	ctx := t.Context()
	check(t, e.Stop(ctx, "c", engine.StopRequest{}))
	r := initRequest
	// a connection over the loopback device
	r.Args = sh("trap 'exec /bin/busybox nc -w 1000 127.0.0.1 99' USR1; /bin/busybox nc -l -p 99 -e /bin/cat & echo ready; while :; do sleep 1; done")
	check(t, e.Start(ctx, "c", r))
	console(t, e, "c", "ready")
	pid := strconv.Itoa(status(t, e, engine.StatusRunning).Process.Pid)
	if out, err := exec.Command("nsenter", "-t", pid, "-n", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	con, err := e.Attach(ctx, "c", 0)
	check(t, err)
	check(t, e.Kill(ctx, "c", int(unix.SIGUSR1)))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 6000 {
		table, err := os.ReadFile("/proc/" + pid + "/net/tcp")
		check(t, err)
		if strings.Contains(string(table), " 01 ") { // established
			break
		}
		<-tick.C
	}
	check(t, con.Close())
	dir := filepath.Join(t.TempDir(), "checkpoint")
	err = e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "TCP") {
		t.Errorf("with a connection: %v", err)
	}
	if public := errdefs.PublicText(err, ""); strings.Contains(public, "criu") || public == "" {
		t.Errorf("the tenant is told %q", public)
	}
	status(t, e, engine.StatusRunning)
	check(t, e.Stop(ctx, "c", engine.StopRequest{}))
	check(t, e.Delete(ctx, "c"))
}

// A restore that criu fails leaves the container stopped, and the checkpoint.
func TestCriuFails(t *testing.T) {
	e, done := restoring(t)
	defer done()
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "checkpoint")
	check(t, e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: dir}))
	// no room for the second process
	two, one := int64(512), int64(1)
	_, err := e.Update(ctx, "c", engine.LimitsChange{Pids: &one})
	check(t, err)
	err = e.Restore(ctx, "c", engine.RestoreRequest{Dir: dir})
	if err == nil {
		t.Error("restored within one process")
	}
	t.Logf("with room for one process: %v", err)
	status(t, e, engine.StatusStopped)
	_, err = e.Update(ctx, "c", engine.LimitsChange{Pids: &two})
	check(t, err)
	page := filepath.Join(dir, "images", "core-1.img")
	image, err := os.ReadFile(page)
	check(t, err)
	check(t, os.WriteFile(page, image[:len(image)/2], 0o644))
	err = e.Restore(ctx, "c", engine.RestoreRequest{Dir: dir})
	if err == nil {
		t.Error("restored from half an image")
	}
	t.Logf("from half an image: %v", err)
	status(t, e, engine.StatusStopped)
	check(t, os.WriteFile(page, image, 0o644))
	check(t, e.Restore(ctx, "c", engine.RestoreRequest{Dir: dir}))
	if s := status(t, e, engine.StatusRunning); s.Limits.Pids != (cgroup.Limits{Pids: two}).Pids {
		t.Errorf("limits %+v", s.Limits)
	}
	check(t, e.Delete(ctx, "c"))
}
