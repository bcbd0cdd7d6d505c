// Package snapshottest holds the conformance suite of engine/snapshot: what
// each Snapshotter must do, with real mounts. It needs the host's root and
// imports the contract and testing only.
package snapshottest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/snapshot"
)

// Factory opens the Snapshotter whose state is in root. The suite calls it
// again on one root to act as a restarted process.
type Factory func(t *testing.T, root string) snapshot.Snapshotter

// Run checks the contract against what f makes. Mounts appear in the mount
// namespace of the calling process.
func Run(t *testing.T, f Factory) {
	t.Helper()
	RunIn(t, "", f)
}

// RunIn is Run with the stores below dir, which everybody may search.
func RunIn(t *testing.T, dir string, f Factory) {
	for name, check := range map[string]func(*testing.T, *env){
		"layers are committed once":        layersOnce,
		"a failed unpack leaves nothing":   failedUnpack,
		"packed layers":                    packedLayers,
		"names are checked":                namesChecked,
		"disks over layers":                disks,
		"two containers share layers":      shareLayers,
		"ids on disk are the container's":  idsOnDisk,
		"changes survive a remount":        remount,
		"mount and unmount are idempotent": idempotent,
		"roots that are attached nowhere":  detachedRoots,
		"layers in use stay":               layersInUse,
		"many layers":                      manyLayers,
		"opaque root":                      opaqueRoot,
		"empty chain":                      emptyChain,
		"restart keeps what is there":      restart,
		"removal is idempotent":            removal,
		"views":                            views,
		"commit":                           commits,
		"stage":                            stages,
		"changes make the same disk again": roundTrip,
		"changes make the same disk there": carry,
		"limits":                           limits,
		"limits that cannot be had":        noLimits,
		"check of a sound store":           checkSound,
		"check finds and mends":            checkMends,
		"check keeps what is referred to":  checkKeeps,
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, dir, f)
			check(t, e)
			e.tearDown(t)
			if left := MountsBelow(t, e.dir); len(left) != 0 {
				t.Errorf("still mounted:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

type env struct {
	snapshot.Snapshotter
	f       Factory
	dir     string // readable by the containers' ids
	targets []string
}

func newEnv(t *testing.T, base string, f Factory) *env {
	t.Helper()
	dir, err := os.MkdirTemp(base, "snapshottest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "store")
	return &env{Snapshotter: f(t, root), f: f, dir: dir}
}

func (e *env) tearDown(t *testing.T) {
	t.Helper()
	for _, target := range e.targets {
		if err := e.Unmount(t.Context(), target); err != nil {
			t.Error(err)
		}
	}
	keys, err := e.List(t.Context())
	for _, key := range keys {
		err = errors.Join(err, e.Remove(t.Context(), key))
	}
	if err != nil {
		t.Error(err)
	}
	e.Close()
}

// target makes a directory to mount at.
func (e *env) target(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(e.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	e.targets = append(e.targets, dir)
	return dir
}

// MountsBelow lists the mount points of this process below dir. Others may come
// and go by themselves.
func MountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			out = append(out, f[4])
		}
	}
	slices.Sort(out)
	return out
}

// IDs returns a user namespace that maps ids 0 to 65535 to those from base on.
// It lives as long as t.
func IDs(t testing.TB, base int) snapshot.IDs {
	t.Helper()
	cmd := exec.Command("/bin/cat")
	cmd.SysProcAttr = inUserNS(base)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	return snapshot.IDs{UserNS: "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/user", Root: uint32(base)}
}

func inUserNS(base int) *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: 65536}}
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{Uid: 0, Gid: 0},
	}
}

// Inside runs a shell script as the root, or another id, of a user namespace
// as IDs makes them, with target as its working directory.
func Inside(t *testing.T, base int, uid uint32, target, script string) (string, error) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Dir = target
	cmd.SysProcAttr = inUserNS(base)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// chainID makes a chain id from a name.
func chainID(name string) string { return digest.FromString(name).String() }

// layer commits a layer of files: "path" or "path=content".
func (e *env) layer(t *testing.T, name string, files ...string) string {
	t.Helper()
	id := chainID(name)
	err := e.Unpack(t.Context(), id, func(dir string) error { return write(dir, files...) })
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func write(dir string, files ...string) error {
	for _, f := range files {
		name, data, _ := strings.Cut(f, "=")
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) mount(t *testing.T, key, target string, base int) {
	t.Helper()
	must(t, e.Mount(t.Context(), key, target, IDs(t, base)))
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func wantClass(t *testing.T, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("got error %v, want class %v", err, class)
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != want {
		t.Fatalf("%s: %q, %v, want %q", path, data, err, want)
	}
}
