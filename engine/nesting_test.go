package engine_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// inner enters user, mount, pid, network, ipc and uts namespaces of its own, as
// the engine of an ordinary user does, and runs a script there.
func inner(script string) []string {
	return []string{"/bin/busybox", "unshare", "-Urmpniuf", "--mount-proc", "/bin/sh", "-c", script}
}

// outer starts "c" with or without nesting, with a first process that waits.
func outer(t *testing.T, e *engine.Engine, req engine.StartRequest) {
	t.Helper()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	again(t, e, req)
}

func again(t *testing.T, e *engine.Engine, req engine.StartRequest) {
	t.Helper()
	req.Args, req.Env, req.ConsoleBytes = sh("echo ready; "+forever), initRequest.Env, 1<<16
	check(t, e.Start(t.Context(), "c", req))
}

// private mounts a file system of its own at /tmp.
const private = "B=/bin/busybox; $B mount -t tmpfs x /tmp && $B mkdir /tmp/l /tmp/u /tmp/w /tmp/m && "

// attempts of whoever runs containers, each a script that says nothing when it
// succeeds, which is with nesting only.
var attempts = map[string][]string{
	"proc in nested namespaces":    inner("[ $$ = 1 ] && read a </proc/sys/kernel/ostype"),
	"sysfs in nested namespaces":   inner(private + "$B mount -t sysfs x /tmp/m && $B ls /tmp/m/class/net/lo >/dev/null"),
	"settings of an own network":   sh("echo 1 >/proc/sys/net/ipv4/ip_forward"),
	"settings of a nested network": inner("echo 1 >/proc/sys/net/ipv4/ip_forward"),
}

// always are those that the system profile grants by itself.
var always = map[string][]string{
	"overlay in nested namespaces": inner0(private + "$B mount -t overlay -o userxattr,lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w x /tmp/m && echo >/tmp/m/file && [ -e /tmp/u/file ]"),
	"another root":                 inner0(private + "$B mkdir /tmp/m/old /tmp/m/bin && $B mount --bind /tmp/m /tmp/m && $B mount --bind /bin /tmp/m/bin && cd /tmp/m && $B pivot_root . old && [ -d /old/proc ]"),
	"a control group":              sh("/bin/mkdir /sys/fs/cgroup/x && echo 0 >/sys/fs/cgroup/x/cgroup.procs && [ -e /sys/fs/cgroup/x ]"),
}

// inner0 is inner without a proc of its own.
func inner0(script string) []string {
	return []string{"/bin/busybox", "unshare", "-Urmpnf", "/bin/sh", "-c", script}
}

func attempt(t *testing.T, e *engine.Engine, what string, args []string, want bool) {
	t.Helper()
	out, exit := execOutput(t, e, engine.ExecRequest{Args: args})
	if got := exit.Code == 0 && out == ""; got != want {
		t.Errorf("%s: %+v with %q", what, exit, out)
	}
}

// TestNesting: what container engines need is there with nesting, and without it
// the system profile has only what it had.
func TestNesting(t *testing.T) {
	_, e, done := hostile(t)
	defer done()
	devices := map[string]bool{} // by what everybody may open on the host
	for _, name := range []string{"/dev/fuse", "/dev/net/tun"} {
		st, err := os.Stat(name)
		if err != nil || st.Mode()&0o666 != 0o666 {
			continue
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if devices[name] = err == nil; err == nil {
			check(t, f.Close())
		}
	}
	outer(t, e, engine.StartRequest{Nesting: true})
	for turn, nested := range []bool{true, false, true} {
		if turn > 0 {
			check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
			again(t, e, engine.StartRequest{Nesting: nested, Profile: engine.ProfileSystem})
		}
		for what, args := range attempts {
			attempt(t, e, what, args, nested)
		}
		for what, args := range always {
			attempt(t, e, what, args, true)
		}
		for range 2 { // before a change of limits and after it
			for name, there := range devices {
				attempt(t, e, name, sh("[ -c "+name+" ] && exec 3<>"+name), nested && there)
			}
			pids := int64(200)
			_, err := e.Update(t.Context(), "c", engine.LimitsChange{Pids: &pids})
			check(t, err)
		}
	}
}

// TestNestingOfAnInstance: nesting needs the system profile.
func TestNestingOfAnInstance(t *testing.T) {
	_, e, done := hostile(t)
	defer done()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	err := e.Start(t.Context(), "c", engine.StartRequest{Args: sh(forever), Nesting: true, Profile: engine.ProfileInstance})
	if !errors.Is(err, errdefs.ErrInvalid) || errdefs.PublicText(err, "") == "" {
		t.Errorf("nesting in an instance: %v", err)
	}
	if s, err := e.State(t.Context(), "c"); err != nil || s.Status == engine.StatusRunning {
		t.Errorf("it is %v, %v", s.Status, err)
	}
}

// TestSecurityNesting: neither root of a container that may nest, nor root of a
// nested user namespace, reaches what root of a system container does not: RT-7,
// RT-13, RT-14. Who may not unmount masks finds no way round them outside of a
// proc of its own, and that tells no secret.
func TestSecurityNesting(t *testing.T) {
	hostCanary(t)
	_, e, done := hostile(t, dir("run"))
	defer done()
	outer(t, e, engine.StartRequest{Nesting: true})
	for who, args := range map[string][]string{
		"root":        {"/bin/probe", "reach"},
		"nested root": inner("exec /bin/probe reach"),
	} {
		out, exit := execOutput(t, e, engine.ExecRequest{Args: args})
		n := 0
		for line := range strings.Lines(out) {
			name, word, _ := strings.Cut(strings.TrimSpace(line), " ")
			n++
			switch word {
			case "EPERM", "EACCES":
			case "ENOSYS":
				if name != "keyctl" {
					t.Errorf("%s: %s: %s", who, name, word)
				}
			case "EROFS", "ENOENT", "EBUSY", "ENOTBLK": // as its place is
				if name != "sysrq" && name != "mount-hierarchy" && name != "mount-ext4" && name != "kernel-setting" {
					t.Errorf("%s: %s: %s", who, name, word)
				}
			default:
				t.Errorf("%s: %s: %s", who, name, word)
			}
		}
		if n < 23 || exit.Code != 0 {
			t.Errorf("%s: it ended %+v with\n%s", who, exit, out)
		}
	}
	const unmount = "for m in /dev/.gantry /proc/keys /proc/sysrq-trigger /sys/firmware; do /bin/busybox umount $m 2>/dev/null && echo $m; done; "
	for what, args := range map[string][]string{
		// locked in a copy of the mount namespace
		"masks":            inner0(unmount),
		"the hidden place": inner0("[ ! -e /dev/.gantry/proc/self ] || echo there; cd /dev/.gantry 2>/dev/null && /bin/ls"),
		// the first process has the same user id, and rights that a nested root has not
		"memory of others": inner0("for f in environ mem maps root/etc cwd; do (/bin/ls /proc/1/$f/ || read a </proc/1/$f) >/dev/null 2>&1 && echo $f; done"),
		"an own proc":      inner("for f in kcore timer_list kpageflags sched_debug; do read a </proc/$f && echo $f; done 2>/dev/null; (echo b >/proc/sysrq-trigger) 2>/dev/null && echo sysrq"),
		"nodes":            inner(private + "for n in 'c 1 1' 'c 1 11' 'b 7 0'; do $B mknod /tmp/n $n 2>/dev/null && echo $n; done"),
	} {
		if out, _ := execOutput(t, e, engine.ExecRequest{Args: args}); out != "" {
			t.Errorf("%s: %s", what, out)
		}
	}
}
