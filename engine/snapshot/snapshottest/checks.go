package snapshottest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The first ids of two containers.
const (
	baseA = 1_000_000
	baseB = 1_065_536
)

func layersOnce(t *testing.T, e *env) {
	ctx := t.Context()
	id := chainID("once")
	there, err := e.HasLayer(ctx, id)
	if err != nil || there {
		t.Fatal(there, err)
	}
	calls := 0
	for range 2 {
		must(t, e.Unpack(ctx, id, func(dir string) error { calls++; return write(dir, "a=1") }))
	}
	if there, err = e.HasLayer(ctx, id); err != nil || !there || calls != 1 {
		t.Fatalf("there %v, filled %d times, %v", there, calls, err)
	}
	dir, err := e.Layer(ctx, id)
	must(t, err)
	wantFile(t, filepath.Join(dir, "a"), "1")
	list, err := e.Layers(ctx)
	if err != nil || !slices.Equal(list, []string{id}) {
		t.Fatal(list, err)
	}
	_, err = e.Layer(ctx, chainID("absent"))
	wantClass(t, err, errdefs.ErrNotFound)
}

func failedUnpack(t *testing.T, e *env) {
	want := errors.New("the layer is damaged")
	id := chainID("failed")
	var private string
	err := e.Unpack(t.Context(), id, func(dir string) error {
		private = dir
		return errors.Join(write(dir, "half=1"), want)
	})
	wantClass(t, err, want)
	if there, err := e.HasLayer(t.Context(), id); err != nil || there {
		t.Fatal(there, err)
	}
	if _, err := os.Stat(private); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("left over: %s, %v", private, err)
	}
	full := func(string) error { return &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC} }
	wantClass(t, e.Unpack(t.Context(), id, full), errdefs.ErrExhausted)
	e.layer(t, "failed", "whole=1")
}

func namesChecked(t *testing.T, e *env) {
	ctx := t.Context()
	for _, bad := range []string{"", "x", "../x", "sha256:..", "sha256:" + strings.Repeat("A", 64), "sha512:" + strings.Repeat("a", 64)} {
		_, err := e.HasLayer(ctx, bad)
		wantClass(t, err, errdefs.ErrInvalid)
		wantClass(t, e.Unpack(ctx, bad, nil), errdefs.ErrInvalid)
		wantClass(t, e.RemoveLayer(ctx, bad), errdefs.ErrInvalid)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "../x", ".hidden", "a\x00b", "a,b", "a:b"} {
		wantClass(t, e.Prepare(ctx, bad, nil, snapshot.Limit{}), errdefs.ErrInvalid)
		wantClass(t, e.Remove(ctx, bad), errdefs.ErrInvalid)
		_, err := e.Changes(ctx, bad)
		wantClass(t, err, errdefs.ErrInvalid)
	}
}

func disks(t *testing.T, e *env) {
	ctx := t.Context()
	low := e.layer(t, "low", "a=low", "b=low", "c=low", "gone=low")
	top := chainID("top")
	must(t, e.Unpack(ctx, top, func(dir string) error {
		return errors.Join(write(dir, "b=top"), syscall.Mknod(filepath.Join(dir, "gone"), syscall.S_IFCHR, 0), os.Chmod(dir, 0o711))
	}))
	wantClass(t, e.Prepare(ctx, "c1", []string{low, chainID("absent")}, snapshot.Limit{}), errdefs.ErrNotFound)
	must(t, e.Prepare(ctx, "c1", []string{low, top}, snapshot.Limit{}))
	wantClass(t, e.Prepare(ctx, "c1", []string{low}, snapshot.Limit{}), errdefs.ErrAlreadyExists)
	list, err := e.List(ctx)
	if err != nil || !slices.Equal(list, []string{"c1"}) {
		t.Fatal(list, err)
	}
	target := e.target(t, "rootfs")
	e.mount(t, "c1", target, baseA)
	wantFile(t, filepath.Join(target, "a"), "low")
	wantFile(t, filepath.Join(target, "b"), "top")
	if _, err := os.Lstat(filepath.Join(target, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("whiteout: %v", err)
	}
	info, err := os.Stat(target)
	if err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("root is %v, %v", info.Mode(), err)
	}
	must(t, os.WriteFile(filepath.Join(target, "c"), []byte("mine"), 0o644), os.Remove(filepath.Join(target, "a")))
	_, err = Inside(t, baseA, 0, target, "head -c 100000 /dev/urandom > big && sync .")
	must(t, err)
	changes, err := e.Changes(ctx, "c1")
	must(t, err)
	wantFile(t, filepath.Join(changes, "c"), "mine")
	if st, err := os.Lstat(filepath.Join(changes, "a")); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("whiteout in the changes: %v, %v", st, err)
	}
	use, err := e.Usage(ctx, "c1")
	if err != nil || use.Bytes < 90000 || use.Bytes > 2<<20 || use.Inodes < -1 || use.Inodes > 20 {
		t.Errorf("usage %+v, %v", use, err)
	}
	dir, err := e.Layer(ctx, low)
	must(t, err)
	wantFile(t, filepath.Join(dir, "c"), "low")
	for _, absent := range []string{"c2"} {
		_, err := e.Changes(ctx, absent)
		wantClass(t, err, errdefs.ErrNotFound)
		_, err = e.Usage(ctx, absent)
		wantClass(t, err, errdefs.ErrNotFound)
		wantClass(t, e.Mount(ctx, absent, e.target(t, "none"), IDs(t, baseA)), errdefs.ErrNotFound)
	}
}

func shareLayers(t *testing.T, e *env) {
	id := e.layer(t, "shared", "etc/conf=image", "etc/other=image")
	a, b := e.target(t, "a"), e.target(t, "b")
	must(t, e.Prepare(t.Context(), "a", []string{id}, snapshot.Limit{}), e.Prepare(t.Context(), "b", []string{id}, snapshot.Limit{}))
	e.mount(t, "a", a, baseA)
	e.mount(t, "b", b, baseB)
	for target, base := range map[string]int{a: baseA, b: baseB} {
		out, err := Inside(t, base, 0, target, "stat -c '%u %g' etc/conf && echo $PWD > etc/conf && cat etc/conf")
		if err != nil || out != "0 0\n"+target {
			t.Errorf("inside %s: %q, %v", target, out, err)
		}
		// The other one's ids are strangers here.
		other := baseA + baseB - base
		if out, err := Inside(t, other, 0, target, "echo x > etc/other"); err == nil {
			t.Errorf("a container writes to another's disk: %q", out)
		}
	}
	dir, err := e.Layer(t.Context(), id)
	must(t, err)
	wantFile(t, filepath.Join(dir, "etc/conf"), "image")
	wantFile(t, filepath.Join(a, "etc/conf"), a+"\n")
	wantFile(t, filepath.Join(b, "etc/conf"), b+"\n")
}

func idsOnDisk(t *testing.T, e *env) {
	id := chainID("ids")
	must(t, e.Unpack(t.Context(), id, func(dir string) error {
		p := filepath.Join(dir, "home")
		return errors.Join(write(dir, "su=x"), os.Mkdir(p, 0o700), os.Lchown(p, 1000, 1001), os.Chmod(filepath.Join(dir, "su"), os.ModeSetuid|0o755))
	}))
	must(t, e.Prepare(t.Context(), "c", []string{id}, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	out, err := Inside(t, baseA, 1000, target+"/home", "id -u; touch mine")
	if err != nil || out != "1000" {
		t.Fatalf("%q, %v", out, err)
	}
	_, err = Inside(t, baseA, 0, target, "mkdir byroot && chown 65535:5 byroot && mknod p p && ln -s x l")
	must(t, err)
	changes, err := e.Changes(t.Context(), "c")
	must(t, err)
	for name, want := range map[string][2]uint32{
		"home": {1000, 1001}, "home/mine": {1000, 1000}, "byroot": {65535, 5}, "p": {0, 0}, "l": {0, 0},
	} {
		var st syscall.Stat_t
		must(t, syscall.Lstat(filepath.Join(changes, name), &st))
		if st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%s is %d:%d on disk, want %v", name, st.Uid, st.Gid, want)
		}
		must(t, syscall.Lstat(filepath.Join(target, name), &st))
		if st.Uid != want[0]+baseA || st.Gid != want[1]+baseA {
			t.Errorf("%s is %d:%d for the host", name, st.Uid, st.Gid)
		}
	}
	var st syscall.Statfs_t
	must(t, syscall.Statfs(target, &st))
	const nosuid, nodev = 0x2, 0x4
	if st.Flags&nodev == 0 || st.Flags&nosuid != 0 {
		t.Errorf("flags of the mount are %#x; want nodev and no nosuid", st.Flags)
	}
}

func remount(t *testing.T, e *env) {
	id := e.layer(t, "base", "a=1")
	must(t, e.Prepare(t.Context(), "c", []string{id}, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	for i := range 4 {
		// A container that is started again may have another user namespace
		// with the same ids.
		e.mount(t, "c", target, baseA)
		name := fmt.Sprint("round", i)
		_, err := Inside(t, baseA, 0, target, "echo ok > "+name)
		must(t, err)
		must(t, e.Unmount(t.Context(), target))
		if entries, err := os.ReadDir(target); err != nil || len(entries) != 0 {
			t.Fatalf("still mounted: %v, %v", entries, err)
		}
	}
	e.mount(t, "c", target, baseA)
	for i := range 4 {
		wantFile(t, filepath.Join(target, fmt.Sprint("round", i)), "ok\n")
	}
}

func idempotent(t *testing.T, e *env) {
	ctx := t.Context()
	id := e.layer(t, "base", "a=1")
	must(t, e.Prepare(ctx, "c", []string{id}, snapshot.Limit{}), e.Prepare(ctx, "d", []string{id}, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	must(t, e.Unmount(ctx, target), e.Unmount(ctx, filepath.Join(e.dir, "absent")))
	ids := IDs(t, baseA)
	must(t, e.Mount(ctx, "c", target, ids))
	count := len(MountsBelow(t, e.dir))
	must(t, e.Mount(ctx, "c", target, ids))
	if len(MountsBelow(t, e.dir)) != count {
		t.Error("mounted twice")
	}
	wantClass(t, e.Mount(ctx, "d", target, ids), errdefs.ErrConflict)
	must(t, e.Unmount(ctx, target), e.Unmount(ctx, target))
	if err := e.Mount(ctx, "c", target, snapshot.IDs{UserNS: filepath.Join(e.dir, "no-namespace"), Root: baseA}); err == nil {
		t.Error("mounted without a user namespace")
	}
	// A name that is no directory, or leads elsewhere, is nothing to mount at.
	link := filepath.Join(e.dir, "link")
	must(t, os.Symlink(target, link))
	if err := e.Unmount(ctx, link); err != nil {
		t.Errorf("unmount of a link: %v", err)
	}
}

func detachedRoots(t *testing.T, e *env) {
	ctx := t.Context()
	id := e.layer(t, "base", "a=1")
	must(t, e.Prepare(ctx, "c", []string{id}, snapshot.Limit{}))
	// ids are the container's, and each mount shows what the one before wrote
	for round, base := range []int{baseA, baseA, baseA} {
		root, err := e.Root(ctx, "c", IDs(t, base))
		must(t, err)
		place := fmt.Sprintf("/proc/self/fd/%d", root.Fd())
		out, err := Inside(t, base, 0, place, fmt.Sprintf("cat a; ls -d a round* 2>/dev/null | wc -l; stat -c %%u:%%g a; echo x > round%d; stat -c %%u round%d", round, round))
		if want := fmt.Sprintf("1%d\n0:0\n0", round+1); err != nil || !strings.HasSuffix(out, want) {
			t.Errorf("round %d: %q, want %q, %v", round, out, want, err)
		}
		if left := MountsBelow(t, e.dir); len(left) != 0 {
			t.Errorf("mounted at %v", left)
		}
		must(t, root.Close())
	}
	// the same with a path
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	wantFile(t, filepath.Join(target, "round1"), "x\n")
	must(t, e.Unmount(ctx, target))

	root, err := e.Root(ctx, "absent", IDs(t, baseA))
	if root != nil {
		t.Error("an absent snapshot has a root")
	}
	wantClass(t, err, errdefs.ErrNotFound)
	if root, err := e.Root(ctx, "c", snapshot.IDs{UserNS: filepath.Join(e.dir, "no-namespace"), Root: baseA}); err == nil || root != nil {
		t.Error("a root without a user namespace")
	}
}

func layersInUse(t *testing.T, e *env) {
	ctx := t.Context()
	low, top := e.layer(t, "low", "a=1"), e.layer(t, "top", "b=1")
	must(t, e.Prepare(ctx, "c", []string{low, top}, snapshot.Limit{}))
	wantClass(t, e.RemoveLayer(ctx, low), errdefs.ErrConflict)
	wantClass(t, e.RemoveLayer(ctx, top), errdefs.ErrConflict)
	must(t, e.Remove(ctx, "c"), e.RemoveLayer(ctx, top), e.RemoveLayer(ctx, low))
	if list, err := e.Layers(ctx); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
}

func manyLayers(t *testing.T, e *env) {
	const n = 200
	var chain []string
	for i := range n {
		chain = append(chain, e.layer(t, fmt.Sprint("layer", i), fmt.Sprintf("f%d=%d", i, i), fmt.Sprintf("top=%d", i)))
	}
	must(t, e.Prepare(t.Context(), "c", chain, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	wantFile(t, filepath.Join(target, "top"), fmt.Sprint(n-1))
	wantFile(t, filepath.Join(target, "f0"), "0")
}

func opaqueRoot(t *testing.T, e *env) {
	low := e.layer(t, "low", "hidden=1")
	top := chainID("opaque")
	must(t, e.Unpack(t.Context(), top, func(dir string) error {
		return errors.Join(write(dir, "seen=1"), syscall.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0))
	}))
	must(t, e.Prepare(t.Context(), "c", []string{low, top}, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	wantFile(t, filepath.Join(target, "seen"), "1")
	if _, err := os.Stat(filepath.Join(target, "hidden")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is below an opaque root shows: %v", err)
	}
}

func emptyChain(t *testing.T, e *env) {
	must(t, e.Prepare(t.Context(), "c", nil, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	_, err := Inside(t, baseA, 0, target, "echo x > f")
	must(t, err)
	// Mount may add the places that a container's own file systems go to; they
	// are of no layer and nobody's change.
	entries, err := os.ReadDir(target)
	entries = slices.DeleteFunc(entries, func(d os.DirEntry) bool { return slices.Contains([]string{"dev", "proc", "sys"}, d.Name()) })
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	changes, err := e.Changes(t.Context(), "c")
	must(t, err)
	if entries, err := os.ReadDir(changes); err != nil || len(entries) != 1 {
		t.Error(entries, err)
	}
}

func restart(t *testing.T, e *env) {
	ctx := t.Context()
	id := e.layer(t, "base", "a=1")
	must(t, e.Prepare(ctx, "c", []string{id}, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	again := e.f(t, filepath.Join(e.dir, "store"))
	wantFile(t, filepath.Join(target, "a"), "1")
	must(t, again.Mount(ctx, "c", target, IDs(t, baseA)))
	wantClass(t, again.RemoveLayer(ctx, id), errdefs.ErrConflict)
	if list, err := again.List(ctx); err != nil || !slices.Equal(list, []string{"c"}) {
		t.Fatal(list, err)
	}
	must(t, again.Unmount(ctx, target), again.Remove(ctx, "c"), again.RemoveLayer(ctx, id))
}

func removal(t *testing.T, e *env) {
	ctx := t.Context()
	must(t, e.Remove(ctx, "absent"), e.RemoveLayer(ctx, chainID("absent")))
	id := e.layer(t, "base", "a=1")
	must(t, e.Prepare(ctx, "c", []string{id}, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	_, err := Inside(t, baseA, 0, target, "mkdir -p d/e && echo x > d/e/f && rm a")
	must(t, err)
	must(t, e.Unmount(ctx, target), e.Remove(ctx, "c"), e.Remove(ctx, "c"))
	if list, err := e.List(ctx); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	must(t, e.Prepare(ctx, "c", []string{id}, snapshot.Limit{}))
	e.mount(t, "c", target, baseA)
	wantFile(t, filepath.Join(target, "a"), "1")
}
