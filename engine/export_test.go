package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// changed is a container that has written: it runs on.
func changed(t *testing.T, e *engine.Engine, id engine.ContainerID) {
	t.Helper()
	changedOf(t, e, id, "busybox")
}

func changedOf(t *testing.T, e *engine.Engine, id engine.ContainerID, image string) {
	t.Helper()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: id, Image: image, Limits: limits}))
	req := initRequest
	req.Args = []string{"/bin/sh", "-c", "echo new > /root/new; rm /etc/passwd; echo '#!/bin/sh' > /sbin/init; chown 7:8 /root/new; echo changed; exec sleep 1000"}
	check(t, e.Start(t.Context(), id, req))
	console(t, e, id, "changed")
}

func TestExport(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	changed(t, e, "c")
	r, err := e.Export(t.Context(), "c")
	check(t, err)
	found := map[string]*tar.Header{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		found[path.Clean(header.Name)] = header
	}
	check(t, r.Close())
	check(t, r.Close())
	if f := found["root/new"]; f == nil || f.Uid != 7 || f.Gid != 8 {
		t.Errorf("root/new: %+v", f)
	}
	if f := found["bin/busybox"]; f == nil || f.Uid != 0 || f.Mode != 0o755 {
		t.Errorf("bin/busybox: %+v", f)
	}
	if found["etc"] == nil || found["etc/passwd"] != nil || found["etc/.wh.passwd"] != nil {
		t.Error("a removed file is there")
	}
	if s := stateOf(t, e, "c"); s.Status != engine.StatusRunning {
		t.Errorf("it does not run on: %+v", s)
	}
	// closed half-way
	r, err = e.Export(t.Context(), "c")
	check(t, err)
	_, err = io.ReadFull(r, make([]byte, 512))
	check(t, errors.Join(err, r.Close()))
	if layers, views := entries(t, h, "snapshots/layers"), entries(t, h, "rootfs"); layers != 1 || views != 0 {
		t.Errorf("left: %d layers, %d mounts", layers-1, views)
	}
	if _, err := e.Export(t.Context(), "unknown"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	check(t, e.Delete(t.Context(), "c"))
	nothing(t, h, e)
}

func TestChanges(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	changed(t, e, "c")
	got, err := e.Changes(t.Context(), "c")
	want := []engine.Change{
		{Kind: engine.Modified, Path: "/etc"},
		{Kind: engine.Deleted, Path: "/etc/passwd"},
		{Kind: engine.Modified, Path: "/root"},
		{Kind: engine.Added, Path: "/root/new"},
		{Kind: engine.Modified, Path: "/sbin"},
		{Kind: engine.Modified, Path: "/sbin/init"},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	check(t, e.Delete(t.Context(), "c"))
	nothing(t, h, e)
}

func TestExportImage(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	check(t, importOCI(t, e, "one", archive(t, enginetest.Busybox(t), oneFile(t, "root/told", "one"))))
	out, err := e.ExportImage(t.Context(), "one")
	check(t, err)
	data, err := io.ReadAll(out.Content)
	check(t, errors.Join(err, out.Content.Close()))
	if int64(len(data)) != out.Size {
		t.Errorf("%d bytes, said %d", len(data), out.Size)
	}
	check(t, e.RemoveImage(t.Context(), "one"))
	_, err = e.Import(t.Context(), engine.ImportRequest{Ref: "again", Content: bytes.NewReader(data), ContainerFormat: "docker", DiskFormat: "raw"})
	check(t, err)
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "again", Limits: limits}))
	check(t, e.Start(t.Context(), "c", initRequest))
	console(t, e, "c", "with one")
	check(t, e.Delete(t.Context(), "c"))
	if _, err := e.ExportImage(t.Context(), "one"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	nothing(t, h, e)
}
