package engine_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/btrfs"
	"github.com/gantry-project/gantry/engine/snapshot/copydir"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// backend is a store of snapshots for an engine, and what its limits do.
type backend struct {
	fs          string
	open        func(ctx context.Context, root string) (snapshot.Snapshotter, error)
	limitBytes  bool
	limitInodes bool
	grows       bool
}

func backends() map[string]backend {
	return map[string]backend{
		"overlay, no limits": {fs: "ext4", open: func(_ context.Context, root string) (snapshot.Snapshotter, error) { return overlay.New(root) }},
		"overlay, loop files": {fs: "ext4", limitBytes: true, limitInodes: true, open: func(ctx context.Context, root string) (snapshot.Snapshotter, error) {
			return overlay.Open(ctx, root, overlay.Options{Limit: snapshot.LimitLoop})
		}},
		"btrfs, quota groups": {fs: "btrfs", limitBytes: true, grows: true, open: func(ctx context.Context, root string) (snapshot.Snapshotter, error) {
			return btrfs.Open(ctx, root, btrfs.Options{Limit: snapshot.LimitQgroup})
		}},
		"copies, loop files": {fs: "ext4", limitBytes: true, limitInodes: true, open: func(ctx context.Context, root string) (snapshot.Snapshotter, error) {
			return copydir.Open(ctx, root, copydir.Options{Limit: snapshot.LimitLoop})
		}},
	}
}

// on is an engine with an image on a file system of its own.
func (b backend) on(t *testing.T) (*enginetest.Host, *engine.Engine, func()) {
	t.Helper()
	dir := snapshottest.FileSystem(t, b.fs, 400<<20, "")
	h := enginetest.NewHost(t)
	h.Root, h.Snapshots = filepath.Join(dir, "engine"), b.open
	e, done := h.Engine(t)
	_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "busybox", Content: bytes.NewReader(enginetest.Busybox(t)), ContainerFormat: "bare", DiskFormat: "raw"})
	check(t, err)
	return h, e, done
}

// TestDiskLimit: what a container writes is bounded where the host can do it,
// and where it cannot the container is made and says so.
func TestDiskLimit(t *testing.T) {
	const size = 40 << 20
	for name, b := range backends() {
		t.Run(name, func(t *testing.T) {
			h, e, done := b.on(t)
			defer func() { done() }()
			asked := snapshot.Limit{Bytes: size, Inodes: 2000}
			want := asked
			if !b.limitBytes {
				want.Bytes = 0
			}
			if !b.limitInodes {
				want.Inodes = 0
			}
			err := e.Create(t.Context(), engine.CreateRequest{ID: "bad", Image: "busybox", Disk: snapshot.Limit{Bytes: -1}})
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("negative: %v", err)
			}
			check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Disk: asked, Limits: cgroup.Limits{Pids: 64}}))
			done()
			e, done = h.Engine(t) // it is recorded
			s, err := e.State(t.Context(), "c")
			if err != nil || s.Disk != asked || s.DiskEnforced != want {
				t.Errorf("state %+v %v", s, err)
			}
			check(t, e.Start(t.Context(), "c", engine.StartRequest{
				Args: []string{"/bin/sh", "-c", "dd if=/dev/zero of=/root/big bs=1048576 count=100; echo status $?; sync; " + forever}, Env: initRequest.Env, ConsoleBytes: 1 << 16,
			}))
			out := console(t, e, "c", "status ")
			if fits := strings.Contains(out, "status 0"); fits != !b.limitBytes {
				t.Errorf("100 MiB into 40: %s", out)
			}
			u, err := e.DiskUsage(t.Context(), "c")
			if err != nil || u.Bytes < 20<<20 || b.limitBytes && u.Bytes > size+(4<<20) {
				t.Errorf("usage %+v %v", u, err)
			}
			check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
			check(t, e.Delete(t.Context(), "c"))
		})
	}
}

// TestDiskLimitLive: a running container's disk grows and shrinks; a failure
// leaves the limit as it was.
func TestDiskLimitLive(t *testing.T) {
	for name, b := range backends() {
		t.Run(name, func(t *testing.T) {
			_, e, done := b.on(t)
			defer done()
			disk := func(n int64) engine.LimitsChange { return engine.LimitsChange{DiskBytes: &n} }
			check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Disk: snapshot.Limit{Bytes: 40 << 20}, Limits: cgroup.Limits{Pids: 64}}))
			before, err := e.State(t.Context(), "c")
			check(t, err)
			if _, err := e.Update(t.Context(), "c", disk(-1)); !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("negative: %v", err)
			}
			if !b.grows {
				if _, err := e.Update(t.Context(), "c", disk(20<<20)); !errors.Is(err, errdefs.ErrUnsupported) {
					t.Errorf("not possible: %v", err)
				}
			} else {
				check(t, failpoint.Set("engine.update.record", "error"))
				_, err := e.Update(t.Context(), "c", disk(10<<20))
				check(t, failpoint.Set("engine.update.record", ""))
				if !errors.Is(err, failpoint.ErrInjected) {
					t.Errorf("record fails: %v", err)
				}
			}
			after, err := e.State(t.Context(), "c")
			if err != nil || after.Disk != before.Disk || after.DiskEnforced != before.DiskEnforced {
				t.Errorf("after failures %+v %v", after, err)
			}
			if b.grows {
				check(t, e.Start(t.Context(), "c", engine.StartRequest{
					Args: []string{"/bin/sh", "-c", "read go; dd if=/dev/zero of=/root/big bs=1048576 count=60; echo status $?; " + forever}, Env: initRequest.Env, ConsoleBytes: 1 << 16,
				}))
				_, err := e.Update(t.Context(), "c", disk(100<<20))
				check(t, err)
				con, err := e.Attach(t.Context(), "c", 0)
				check(t, err)
				_, err = con.Write([]byte("go\n"))
				check(t, err)
				if out := console(t, e, "c", "status "); !strings.Contains(out, "status 0") {
					t.Errorf("60 MiB into 100: %s", out)
				}
				check(t, con.Close())
				if s, err := e.State(t.Context(), "c"); err != nil || s.DiskEnforced.Bytes != 100<<20 {
					t.Errorf("%+v %v", s, err)
				}
				check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
			}
			check(t, e.Delete(t.Context(), "c"))
		})
	}
}
