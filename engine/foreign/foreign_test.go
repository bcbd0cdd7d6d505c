package foreign_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/foreign"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/process/processtest"
)

// through gives every first process to another runtime.
type through struct {
	process.Runner
	runtime string
}

func (r through) Start(ctx context.Context, id string, spec process.Spec) (process.Process, error) {
	if spec.Join == "" {
		spec.Runtime = r.runtime
		ids := []process.IDMap{{ContainerID: 0, HostID: processtest.HostID, Size: 65536}}
		spec.UIDMap, spec.GIDMap = ids, ids
	}
	return r.Runner.Start(ctx, id, spec)
}

// own is the runtime of this tree; it is built once.
var own = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gantry-runtime")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "runtime")
	out, err := exec.Command("go", "build", "-o", program, "github.com/gantry-project/gantry/cmd/gantry-runtime").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

// crun makes Debian's crun 1.8 into a runtime for this host: it refuses v1 with
// a v2 part that has a controller, so it is shown v1 alone there.
var crun = sync.OnceValues(func() (string, error) {
	program, err := exec.LookPath("crun")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "gantry-crun")
	if err != nil {
		return "", err
	}
	script := filepath.Join(dir, "crun")
	return script, os.WriteFile(script, []byte(`#!/bin/sh
exec unshare --mount --propagation slave /bin/sh -c '
	if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
	exec "$0" "$@"' `+program+` "$@"
`), 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	for _, made := range []func() (string, error){own, crun} {
		if script, err := made(); err == nil {
			_ = os.RemoveAll(filepath.Dir(script))
		}
	}
	os.Exit(code)
}

// A program under test, and what of processtest.Isolation it cannot do.
type program struct {
	name string
	path func() (string, error)
	but  []string
	// group says that it enters a control group that it has not made.
	group bool
	// orphans says that it leaves a dead process behind when the command of a
	// session cannot be executed. The container cannot end before that is
	// waited for, which a guard does, and these runners have none.
	orphans bool
}

// notForeign is what no runtime is asked to do: what process.Spec.Runtime says
// is refused (gates, hooks, files to preserve, scheduling), commands whose form
// shows only when they are executed, files behind dangling links, and what
// exec of runc's command line does in another way than Spec.Join.
// NoNewPrivs brings a compiled filter along.
func notForeign() []string {
	return []string{
		"Attributes", "CommandErrors", "Exec", "ExecHostileContainer", "ExecHostileCwd", "ExecUntraceable",
		"ForeignCommands", "Gate", "GateHooks", "HookFailures", "Hooks", "HostileFileParent", "NoNewPrivs", "PreserveFailure",
		"Scheduling", "Stdio",
	}
}

func programs() []program {
	return []program{
		{name: "own", path: own, but: notForeign()},
		// runc adds HOME, takes an unknown sysctl for a failure of the host, and
		// starts in / where a working directory is a link of /proc to it.
		{
			name: "runc", path: func() (string, error) { return exec.LookPath("runc") },
			group: true, but: append(notForeign(), "Identity", "Sysctls", "HostileWorkingDirectory"),
		},
		// crun does so too, makes a /dev/core, and loses nosuid, nodev and noexec
		// where it makes a path read-only.
		{
			name: "crun", path: crun, orphans: true,
			group: true, but: append(notForeign(), "Identity", "Sysctls", "HostileWorkingDirectory", "Devices", "Mounts"),
		},
	}
}

func newRunner(t *testing.T, runtime string) through {
	t.Helper()
	parent := t.TempDir()
	if err := os.Chmod(filepath.Dir(parent), 0o711); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "f")
	log := zerolog.New(zerolog.NewTestWriter(t))
	f, err := foreign.New(t.Context(), foreign.Options{Dir: dir, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := process.New(process.Options{Log: log, Foreign: f})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	return through{l, runtime}
}

func each(t *testing.T, list []program, run func(t *testing.T, p program, runtime string)) {
	for _, p := range list {
		t.Run(p.name, func(t *testing.T) {
			runtime, err := p.path()
			if err != nil {
				t.Fatalf("%v (functional/controlplane/deps installs what tests need)", err)
			}
			before := ownerOfNull(t)
			run(t, p, runtime)
			if after := ownerOfNull(t); after != before {
				t.Errorf("the host's /dev/null belonged to %v, now to %v", before, after)
			}
		})
	}
}

// ownerOfNull is the user and group of the host's null device.
func ownerOfNull(t *testing.T) [2]uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(os.DevNull, &st); err != nil {
		t.Fatal(err)
	}
	return [2]uint32{st.Uid, st.Gid}
}

func TestSuite(t *testing.T) {
	whole := slices.DeleteFunc(programs(), func(p program) bool { return p.orphans })
	each(t, whole, func(t *testing.T, _ program, runtime string) {
		processtest.Suite(t, func(t *testing.T) processtest.Harness {
			f := processtest.NewFixture(t)
			return processtest.Harness{
				Runner: newRunner(t, runtime),
				Spec:   func(t *testing.T, args ...string) process.Spec { return f.Spec(t, args...) },
			}
		})
	})
}

func TestIsolation(t *testing.T) {
	each(t, programs(), func(t *testing.T, p program, runtime string) {
		processtest.IsolationBut(t, p.but, func(t *testing.T) process.Runner { return newRunner(t, runtime) })
	})
}
