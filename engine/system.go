package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/seccomp"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Profile names what a container may do inside its own user namespace.
type Profile string

// The profiles.
const (
	// ProfileAuto is ProfileSystem where root's first process is systemd, which
	// is told by the program, and ProfileInstance for everything else.
	ProfileAuto Profile = ""
	// ProfileInstance is the default profile (profile.go).
	ProfileInstance Profile = "instance"
	// ProfileSystem lets an init mount, make control groups and confine its
	// services: more capabilities and their system calls, all inside the
	// container's user namespace, and a part of cgroup v2 that is its own.
	// errdefs.ErrUnsupported where no cgroup v2 is mounted, and for a runtime that
	// is not the engine's own.
	ProfileSystem Profile = "system"
)

// Valid reports whether it is one of the profiles.
func (p Profile) Valid() bool {
	return p == ProfileAuto || p == ProfileInstance || p == ProfileSystem
}

// systemCapabilities are those of ProfileSystem: what systemd, logind and
// networkd need besides. None of them counts outside the user namespace. Not
// among them is what reaches the host whatever the namespace: modules, raw
// devices, clocks, its log, BPF, file handles.
var systemCapabilities = append(slices.Clone(capabilities),
	"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_IPC_LOCK")

// maxSubgroups bounds the control groups that a container makes: the host pays
// for each with memory that nobody is charged for. Debian with systemd has 40.
const maxSubgroups = 4096

// systemFilter is the filter of ProfileSystem.
var systemFilter = sync.OnceValues(func() ([]process.SockFilter, error) { return filterFor(systemCapabilities) })

// filterFor compiles the default system call profile for who holds capabilities;
// calls that are missing are as unknown as those that a kernel does not have.
func filterFor(capabilities []string, missing ...string) ([]process.SockFilter, error) {
	profile, err := seccomp.Default(capabilities)
	if err != nil {
		return nil, err
	}
	for _, name := range missing {
		profile.Calls[name] = seccomp.Rule{If: profile.Unknown}
	}
	code, err := seccomp.Compile(profile, seccomp.Arch(runtime.GOARCH))
	if err != nil {
		return nil, err
	}
	out := make([]process.SockFilter, len(code))
	for i, in := range code {
		out[i] = process.SockFilter(in)
	}
	return out, nil
}

// isSystem reports whether a Spec is of ProfileSystem.
func isSystem(spec process.Spec) bool { return slices.Contains(spec.Capabilities, "CAP_SYS_ADMIN") }

// asSystem turns a Spec of the default profile into one of ProfileSystem, if
// that is the one to use: the environment tells an init where it is
// (systemd's CONTAINER_INTERFACE), and control groups are cgroup v2 alone,
// because systemd would look for its own hierarchy of v1, whose root has a
// release_agent.
func (e *Engine) asSystem(spec *process.Spec, rec store.Container, root *os.File, want Profile) error {
	able := rec.Runtime == "" && e.opts.Cgroups.Supports(cgroup.LimitUnified)
	switch want {
	case ProfileInstance:
		return nil
	case ProfileAuto:
		if !able || spec.NoNewPrivs || spec.UID != 0 || !isSystemd(root, spec.Args[0]) {
			return nil
		}
	case ProfileSystem:
		if !able {
			return errdefs.WithPublic(fmt.Errorf("system profile without cgroup v2, or with runtime %q: %w", rec.Runtime, errdefs.ErrUnsupported),
				"This host cannot run an instance as a system of its own.")
		}
	default:
		return fmt.Errorf("profile %.64q: %w", want, errdefs.ErrInvalid)
	}
	filter, err := systemFilter()
	if err != nil {
		return err
	}
	spec.Capabilities, spec.Seccomp = systemCapabilities, filter
	spec.Mounts = slices.Clone(spec.Mounts)
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; m.Type == "cgroup" {
			m.Type, m.Options = "cgroup2", []string{"nosuid", "nodev", "noexec"}
		}
	}
	spec.Env = withEnv(spec.Env, "container", "gantry")
	if isUUID(rec.ID) { // systemd makes its machine id of it where the image has none
		spec.Env = withEnv(spec.Env, "container_uuid", rec.ID)
	}
	return nil
}

// withEnv adds a variable that is not there.
func withEnv(env []string, name, value string) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
		return env
	}
	return append(slices.Clone(env), name+"="+value)
}

// isUUID reports whether id has the form 8-4-4-4-12 of RFC 9562.
func isUUID(id string) bool {
	if len(id) != 36 {
		return false
	}
	for i, c := range id {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !strings.ContainsRune("0123456789abcdef", c) {
			return false
		}
	}
	return true
}

// isSystemd reports whether the program, links followed inside the root, is
// systemd.
func isSystemd(root *os.File, program string) bool {
	if !filepath.IsAbs(program) {
		return false
	}
	f, err := linux.OpenInRoot(root, strings.TrimPrefix(filepath.Clean(program), "/"), unix.O_PATH)
	if err != nil {
		return false
	}
	defer f.Close()
	at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	return err == nil && strings.HasSuffix(at, "/lib/systemd/systemd")
}

// delegate gives root of a system container its part of cgroup v2.
func delegate(ctx context.Context, spec process.Spec, rec store.Container, group cgroup.Group) error {
	if !isSystem(spec) {
		return nil
	}
	return group.Delegate(ctx, rec.IDBase, maxSubgroups)
}

// bearBeside makes the group the one that a session is born in. In a group whose
// sub-groups have controllers no process may be (cgroup-v2.rst, No Internal
// Process Constraint), so a session in a system container goes where the first
// process has gone.
func bearBeside(spec *process.Spec, group cgroup.Group, session store.Session, first int) ([]*os.File, error) {
	files, err := bear(spec, group)
	if err != nil || !session.System || spec.CgroupDir == nil {
		return files, err
	}
	dir, err := group.DirOf(first)
	if err != nil {
		linux.CloseAll(files)
		return nil, err
	}
	linux.CloseAll(files[:1])
	files[0], spec.CgroupDir = dir, dir
	return files, nil
}
