// Package enginetest gives tests an engine on the real kernel: own runner,
// control groups, store and snapshots below a temporary directory, and a small
// image made of busybox. It is for tests only and needs root.
package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/linux"
)

// Host is the part of an engine that outlives it: its runner, state and groups.
type Host struct {
	// Runtimes of the engine; Runner has to be one that can start them.
	Runtimes map[string]string
	Root     string
	Runner   process.Runner
	Cgroups  cgroup.Tree
	// BootID is what engines take for the boot of the kernel; empty is the real one.
	BootID string
	// Snapshots opens the store of snapshots at root; nil is overlay's, without
	// limits.
	Snapshots func(ctx context.Context, root string) (snapshot.Snapshotter, error)
	// Unpack, ReadDisk and Log are the engine's options; a nil Log is the test's.
	Unpack   engine.Unpacker
	ReadDisk disk.Converter
	// WriteDisk is the engine's option.
	WriteDisk disk.Rewriter
	Log       io.Writer
	// View is the engine's option.
	View engine.GuestView
	// ImageLimits, LayerLimits and ImageTime are the engine's options.
	ImageLimits image.Limits
	LayerLimits layer.Limits
	ImageTime   time.Duration
	group       string
}

// NewHost makes an empty host whose runner has the options. At the end of the test
// nothing may be left of it.
func NewHost(t testing.TB, options ...func(*process.Options)) *Host {
	t.Helper()
	log := zerolog.New(zerolog.NewTestWriter(t))
	o := process.Options{Log: log, Resident: true}
	for _, set := range options {
		set(&o)
	}
	runner, err := process.New(o)
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Root: filepath.Join(t.TempDir(), "engine"), Runner: runner, group: "gantry-test-" + strings.ToLower(filepath.Base(t.TempDir())) + "-" + filepath.Base(filepath.Dir(t.TempDir()))}
	h.group = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(h.group))
	if h.Cgroups, err = cgroup.New(t.Context(), cgroup.Options{Name: h.group}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.check(t, runner) })
	return h
}

// Group is the name of the host's tree of control groups.
func (h *Host) Group() string { return h.group }

// HostAt is the host that another process has made with NewHost, with a runner
// of its own. The maker looks after what is left.
func HostAt(t testing.TB, root, group string) *Host {
	t.Helper()
	runner, err := process.New(process.Options{Log: zerolog.New(zerolog.NewTestWriter(t)), Resident: true})
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Root: root, Runner: runner, group: group}
	if h.Cgroups, err = cgroup.New(t.Context(), cgroup.Options{Name: group}); err != nil {
		t.Fatal(err)
	}
	return h
}

// Engine opens an engine on the host. close ends it as a stopped service would.
func (h *Host) Engine(t testing.TB) (e *engine.Engine, closeEngine func()) {
	t.Helper()
	db, err := store.Open(filepath.Join(h.Root, "gantry.db"))
	if err != nil {
		t.Fatal(err)
	}
	log := h.Log
	if log == nil {
		log = zerolog.NewTestWriter(t)
	}
	open := h.Snapshots
	if open == nil {
		open = func(_ context.Context, root string) (snapshot.Snapshotter, error) { return overlay.New(root) }
	}
	snaps, err := open(t.Context(), filepath.Join(h.Root, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	boot := h.BootID
	if boot == "" {
		if boot, err = linux.BootID(); err != nil {
			t.Fatal(err)
		}
	}
	journal, err := store.OpenLog(filepath.Join(h.Root, "journal"), boot)
	if err != nil {
		t.Fatal(err)
	}
	e, err = engine.Open(t.Context(), engine.Options{
		Root: h.Root, Runner: h.Runner, Cgroups: h.Cgroups, Snapshots: snaps, Store: db,
		Runtimes: h.Runtimes, Journal: journal, BootID: boot, Unpack: h.Unpack, ReadDisk: h.ReadDisk, WriteDisk: h.WriteDisk,
		ImageLimits: h.ImageLimits, LayerLimits: h.LayerLimits, ImageTime: h.ImageTime, View: h.View,
		Log: zerolog.New(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, func() {
		e.Close()
		snaps.Close()
		if err := errors.Join(journal.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}

// check removes the tree of groups and fails when anything is left.
func (h *Host) check(t testing.TB, runner *process.Local) {
	t.Helper()
	ctx := context.Background()
	groups, err := h.Cgroups.List(ctx)
	if err != nil || len(groups) > 0 {
		t.Errorf("control groups left: %v %v", groups, err)
	}
	if err := runner.Close(); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, h.Root) {
			t.Errorf("mount left: %s", line)
		}
	}
	trees, err := filepath.Glob("/sys/fs/cgroup/*/" + h.group)
	if err != nil {
		t.Error(err)
	}
	for _, dir := range append(trees, "/sys/fs/cgroup/"+h.group) {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			t.Errorf("tree of groups left: %v", err)
		}
	}
}

// Busybox is a root file system tarball whose commands are busybox's, with an
// init that says on the console that it is up and waits. Needs the package
// busybox-static.
func Busybox(t testing.TB) []byte {
	t.Helper()
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("%v (package busybox-static)", err)
	}
	const initScript = "#!/bin/sh\ntrap 'echo bye; exit 0' TERM\necho up as $$ with $(cat /root/told 2>/dev/null || echo nothing)\nwhile :; do sleep 1000 & wait $!; done\n"
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, data string) {
		t.Helper()
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "sbin", "etc", "root", "tmp", "proc", "sys", "dev"} {
		add(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, "")
	}
	add(&tar.Header{Name: "bin/busybox", Mode: 0o755}, string(binary))
	for _, name := range []string{"sh", "cat", "echo", "sleep", "ls", "id", "hostname", "sync", "ip", "false", "true", "dd"} {
		add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}, "")
	}
	add(&tar.Header{Name: "sbin/init", Mode: 0o755}, initScript)
	add(&tar.Header{Name: "etc/passwd", Mode: 0o644}, "root:x:0:0::/root:/bin/sh\n")
	add(&tar.Header{Name: "etc/shadow", Mode: 0o640, Gid: 42}, "root:*:19000:0:99999:7:::\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
