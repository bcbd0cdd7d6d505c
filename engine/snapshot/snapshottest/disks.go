package snapshottest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func views(t *testing.T, e *env) {
	ctx := t.Context()
	low := e.layer(t, "low", "a=low", "gone=low")
	top := chainID("top")
	must(t, e.Unpack(ctx, top, func(dir string) error {
		return errors.Join(write(dir, "own=x"), os.Lchown(filepath.Join(dir, "own"), 1000, 1001), syscall.Mknod(filepath.Join(dir, "gone"), syscall.S_IFCHR, 0))
	}))
	for _, chain := range [][]string{{low, top}, {low}, nil} {
		target := e.target(t, fmt.Sprint("view", len(chain)))
		must(t, e.View(ctx, chain, target))
		wantClass(t, e.View(ctx, chain, target), errdefs.ErrConflict)
		if err := os.WriteFile(filepath.Join(target, "new"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("a view can be written to: %v", err)
		}
		var st syscall.Statfs_t
		must(t, syscall.Statfs(target, &st))
		const flags = 0x1 | 0x2 | 0x4 | 0x8 // ro, nosuid, nodev, noexec
		if st.Flags&flags != flags {
			t.Errorf("flags of the view are %#x", st.Flags)
		}
		if len(chain) > 0 {
			wantFile(t, filepath.Join(target, "a"), "low")
		}
		if len(chain) == 2 {
			var own syscall.Stat_t
			must(t, syscall.Lstat(filepath.Join(target, "own"), &own))
			if own.Uid != 1000 || own.Gid != 1001 {
				t.Errorf("owner %d:%d", own.Uid, own.Gid)
			}
			if _, err := os.Lstat(filepath.Join(target, "gone")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("whiteout: %v", err)
			}
		}
		must(t, e.Unmount(ctx, target))
		must(t, e.View(ctx, chain, target), e.Unmount(ctx, target))
	}
	wantClass(t, e.View(ctx, []string{chainID("absent")}, e.target(t, "none")), errdefs.ErrNotFound)
	must(t, e.RemoveLayer(ctx, top), e.RemoveLayer(ctx, low))
	sound(t, e, snapshot.CheckRequest{References: &snapshot.References{}})
}

// stages is about back ends that can make a disk before it has a key.
func stages(t *testing.T, e *env) {
	stager, ok := e.Snapshotter.(snapshot.Stager)
	if !ok {
		return
	}
	ctx := t.Context()
	low := e.layer(t, "low", "a=low")
	chain := []string{low}
	stage := func() snapshot.Staged {
		staged, err := stager.Stage(ctx, chain, snapshot.Limit{})
		must(t, err)
		return staged
	}
	_, err := stager.Stage(ctx, []string{chainID("absent")}, snapshot.Limit{})
	wantClass(t, err, errdefs.ErrNotFound)
	first, second, third := stage(), stage(), stage()
	if list, err := e.List(ctx); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	sound(t, e, snapshot.CheckRequest{References: &snapshot.References{Layers: chain}})
	must(t, first.Name("c"))
	wantClass(t, second.Name("c"), errdefs.ErrAlreadyExists)
	wantClass(t, stage().Name("a/b"), errdefs.ErrInvalid)
	third.Drop()
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	wantFile(t, filepath.Join(target, "a"), "low")
	must(t, e.Unmount(ctx, target), e.Remove(ctx, "c"), e.RemoveLayer(ctx, low))
	sound(t, e, snapshot.CheckRequest{References: &snapshot.References{}})
}

func commits(t *testing.T, e *env) {
	ctx := t.Context()
	low := e.layer(t, "low", "a=low", "b=low")
	must(t, e.Prepare(ctx, "c", []string{low}, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	_, err := Inside(t, baseA, 0, target, "echo new > a && rm b && mkdir d && echo x > d/f")
	must(t, err)
	id := chainID("committed")
	wantClass(t, e.Commit(ctx, "c", id), errdefs.ErrConflict)
	must(t, e.Unmount(ctx, target))
	wantClass(t, e.Commit(ctx, "c", "sha256:x"), errdefs.ErrInvalid)
	if _, err := e.Usage(ctx, "c"); err != nil {
		t.Fatalf("the disk is gone after an error: %v", err)
	}
	must(t, e.Commit(ctx, "c", id))
	wantClass(t, e.Commit(ctx, "c", id), errdefs.ErrNotFound)
	must(t, e.Prepare(ctx, "c2", []string{low, id}, snapshot.Limit{}))
	e.mount(t, "c2", target, baseB)
	out, err := Inside(t, baseB, 0, target, "cat a d/f && ls | grep -vxE 'dev|proc|sys' && stat -c %u:%g a d")
	if err != nil || out != "new\nx\na\nd\n0:0\n0:0" {
		t.Fatalf("%q, %v", out, err)
	}
	// A layer that is there already: the disk goes all the same.
	must(t, e.Prepare(ctx, "c3", []string{low}, snapshot.Limit{}), e.Commit(ctx, "c3", id))
	if list, err := e.List(ctx); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	sound(t, e, snapshot.CheckRequest{References: &snapshot.References{Disks: []string{"c2"}}})
}

// roundTrip changes a disk in every way, makes its changes a layer and compares
// a disk over that with the first.
func roundTrip(t *testing.T, e *env) {
	ctx := t.Context()
	low := changed(t, e)
	first, second := e.target(t, "first"), e.target(t, "second")
	e.mount(t, "a", first, baseA)
	id := chainID("changes")
	want := listing(t, first)
	must(t, e.Unmount(ctx, first), e.Commit(ctx, "a", id))
	must(t, e.Prepare(ctx, "b", []string{low, id}, snapshot.Limit{}))
	e.mount(t, "b", second, baseA)
	if got := listing(t, second); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// carry is roundTrip for a disk that has the changes as its own, twice over.
func carry(t *testing.T, e *env) {
	ctx := t.Context()
	low := changed(t, e)
	want := ""
	for i, key := range []string{"a", "b", "c"} {
		if i > 0 {
			changes, err := e.Changes(ctx, string(rune('a'+i-1)))
			must(t, err)
			must(t, e.PrepareWith(ctx, key, []string{low}, snapshot.Limit{}, func(dir string) error {
				return exec.Command("cp", "-a", changes+"/.", dir).Run()
			}))
		}
		target := e.target(t, "carried-"+key)
		e.mount(t, key, target, baseA)
		got := listing(t, target)
		must(t, e.Unmount(ctx, target))
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("disk %s: got\n%s\nwant\n%s", key, got, want)
		}
	}
	wrong := errors.New("cut off")
	fail := func(dir string) error { return errors.Join(write(dir, "half=x"), wrong) }
	wantClass(t, e.PrepareWith(ctx, "d", []string{low}, snapshot.Limit{}, fail), wrong)
	wantClass(t, e.PrepareWith(ctx, "c", []string{low}, snapshot.Limit{}, fail), errdefs.ErrAlreadyExists)
	wantClass(t, e.PrepareWith(ctx, "d", []string{chainID("absent")}, snapshot.Limit{}, func(string) error { return nil }), errdefs.ErrNotFound)
	if list, err := e.List(ctx); err != nil || len(list) != 3 {
		t.Error(list, err)
	}
	must(t, e.Remove(ctx, "a"), e.Remove(ctx, "b"), e.Remove(ctx, "c"), e.RemoveLayer(ctx, low))
	sound(t, e, snapshot.CheckRequest{References: &snapshot.References{}})
}

// changed makes the disk a, changed in every way, over the layer that it returns.
func changed(t *testing.T, e *env) string {
	ctx := t.Context()
	low := chainID("low")
	same := "0123456789abcdef" // one size and time for several files
	must(t, e.Unpack(ctx, low, func(dir string) error {
		return errors.Join(write(dir, "one/f="+same, "one/sub/g="+same, "two/f=fedcba9876543210", "two/sub/g=fedcba9876543210", "three/h=x",
			"keep/deep/er/k=x", "su=x", "file=x", "dir/inside=x", "linked=x", "times=x", "gone/all=x", "empty/x=x"),
			os.Link(filepath.Join(dir, "linked"), filepath.Join(dir, "linked2")))
	}))
	must(t, e.Prepare(ctx, "a", []string{low}, snapshot.Limit{}))
	target := e.target(t, "changed")
	e.mount(t, "a", target, baseA)
	_, err := Inside(t, baseA, 0, target, strings.Join([]string{
		"set -e",
		"cp -a one three/one; rm -r two; mv one two || { cp -a one two; rm -r one; }", // no redirects: a move of a layer's directory may fail
		"rm -r gone; mkdir gone; echo y > gone/new",                                   // replaced
		"rm -r dir; echo now a file > dir",                                            // directory to file
		"rm file; mkdir file; echo y > file/in",                                       // file to directory
		"chmod 4755 su; chown 1000:1001 keep/deep/er/k; chmod 700 keep/deep",
		"echo more >> linked; ln linked linked3; rm linked2",
		"touch -d @1000000000 times; ln -s /nowhere sym; mkfifo pipe",
		"rm empty/x; head -c 300000 /dev/zero > zeros; mkdir -p new/tree/deep; echo q > new/tree/deep/q",
		"setfattr -n user.note -v hello keep 2>/dev/null || true",
	}, "\n"))
	must(t, err, e.Unmount(ctx, target))
	return low
}

// listing describes a tree as its container sees it.
func listing(t *testing.T, dir string) string {
	t.Helper()
	out, err := Inside(t, baseA, 0, dir, "find . -type d -printf '%p %y %m %U:%G\\n' -o -printf '%p %y %m %U:%G %s %n %l %T@\\n' | LC_ALL=C sort && find . -type f -exec sha256sum {} + | LC_ALL=C sort -k2")
	must(t, err)
	return out
}

const mib = 1 << 20

func limits(t *testing.T, e *env) {
	ctx := t.Context()
	d := e.Describe()
	if !d.LimitBytes {
		return
	}
	id := e.layer(t, "base", "a=1")
	limit := snapshot.Limit{Bytes: 40 * mib}
	if d.LimitInodes {
		limit.Inodes = 300
	}
	must(t, e.Prepare(ctx, "c", []string{id}, limit), e.Prepare(ctx, "other", []string{id}, limit))
	target, other := e.target(t, "rootfs"), e.target(t, "other")
	e.mount(t, "c", target, baseA)
	e.mount(t, "other", other, baseB)
	const fill = "head -c 200000000 /dev/zero > fill; sync fill; stat -c %s fill"
	out, err := Inside(t, baseA, 0, target, fill)
	var size int64
	if _, serr := fmt.Sscan(out[strings.LastIndexByte(out, '\n')+1:], &size); serr != nil || size < 20*mib || size > 42*mib {
		t.Fatalf("%d bytes went in: %q, %v", size, out, err)
	}
	if !strings.Contains(out, "No space") && !strings.Contains(out, "quota exceeded") {
		t.Errorf("what the container sees: %q", out)
	}
	if use, err := e.Usage(ctx, "c"); err != nil || use.Bytes < size-mib || use.Bytes > 42*mib {
		t.Errorf("usage %+v, %v, after %d bytes", use, err, size)
	}
	if out, err := Inside(t, baseB, 0, other, "head -c 5000000 /dev/zero > f && sync f"); err != nil {
		t.Errorf("the limit of one container hits another: %q, %v", out, err)
	}
	must(t, os.WriteFile(filepath.Join(e.dir, "host"), make([]byte, mib), 0o600))
	wantClass(t, e.Commit(ctx, "c", chainID("full")), errdefs.ErrConflict)
	changeLimits(t, e, d, target, size)
	if d.LimitInodes {
		out, err := Inside(t, baseB, 0, other, "i=0; while [ $i -lt 2000 ]; do : > n$i || exit 1; i=$((i+1)); done")
		if err == nil {
			t.Errorf("2000 files went in: %q", out)
		}
	}
}

// changeLimits of the full disk c of 40 MiB.
func changeLimits(t *testing.T, e *env, d snapshot.Description, target string, size int64) {
	t.Helper()
	ctx := t.Context()
	wantClass(t, e.SetLimit(ctx, "absent", snapshot.Limit{}), errdefs.ErrNotFound)
	wantClass(t, e.SetLimit(ctx, "c", snapshot.Limit{Bytes: -1}), errdefs.ErrInvalid)
	err := e.SetLimit(ctx, "c", snapshot.Limit{Bytes: 80 * mib})
	if !d.LimitGrows {
		wantClass(t, err, errdefs.ErrUnsupported)
	} else {
		must(t, err)
		if out, err := Inside(t, baseA, 0, target, "head -c 20000000 /dev/zero > more && sync more"); err != nil {
			t.Errorf("after the limit was raised: %q, %v", out, err)
		}
	}
	err = e.SetLimit(ctx, "c", snapshot.Limit{Bytes: 10 * mib})
	if !d.LimitShrinks {
		wantClass(t, err, errdefs.ErrUnsupported)
		return
	}
	must(t, err)
	if out, err := Inside(t, baseA, 0, target, "head -c 5000000 /dev/zero > evenmore && sync evenmore"); err == nil {
		t.Errorf("after the limit was lowered below %d bytes: %q", size, out)
	}
}

func noLimits(t *testing.T, e *env) {
	ctx := t.Context()
	d := e.Describe()
	wantClass(t, e.Prepare(ctx, "c", nil, snapshot.Limit{Bytes: -1}), errdefs.ErrInvalid)
	if !d.LimitBytes {
		wantClass(t, e.Prepare(ctx, "c", nil, snapshot.Limit{Bytes: 100 * mib}), errdefs.ErrUnsupported)
	}
	if !d.LimitInodes {
		wantClass(t, e.Prepare(ctx, "c", nil, snapshot.Limit{Inodes: 100}), errdefs.ErrUnsupported)
	}
	if d.Offers(snapshot.Limit{Bytes: 1, Inodes: 1}) != (d.LimitBytes && d.LimitInodes) || d.Limit == "" || d.Name == "" || d.IDs == "" {
		t.Errorf("description %+v", d)
	}
	if list, err := e.List(ctx); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	if !d.LimitBytes {
		must(t, e.Prepare(ctx, "c", nil, snapshot.Limit{}))
		wantClass(t, e.SetLimit(ctx, "c", snapshot.Limit{Bytes: 100 * mib}), errdefs.ErrUnsupported)
		must(t, e.SetLimit(ctx, "c", snapshot.Limit{}))
	}
}
