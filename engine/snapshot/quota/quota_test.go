package quota_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/engine/snapshot/quota"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestMain(m *testing.M) { os.Exit(snapshottest.InMountNamespace(m)) }

const mib = 1 << 20

// fill writes until the directory is full and returns how much went in.
func fill(t *testing.T, dir string) (written int64, err error) {
	t.Helper()
	err = mounts.AsRoot(0, func() error { // without the capability that limits do not hold for
		f, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, mib)
		for written < 200*mib {
			n, err := f.Write(buf)
			written += int64(n)
			if err != nil {
				return err
			}
		}
		return f.Sync()
	})
	return written, err
}

// checkBounded is what each kind of limit must do, in the directory root.
func checkBounded(t *testing.T, root string, kind snapshot.LimitKind) {
	ctx := t.Context()
	m, err := quota.New(ctx, root, kind)
	if err != nil {
		t.Fatal(err)
	}
	dir, other := filepath.Join(root, "one"), filepath.Join(root, "other")
	defer func() {
		if err := errors.Join(m.Remove(dir), m.Remove(other)); err != nil {
			t.Error(err)
		}
	}()
	if err := errors.Join(m.Make(ctx, dir, snapshot.Limit{Bytes: 32 * mib, Inodes: 200}), m.Make(ctx, other, snapshot.Limit{Bytes: 32 * mib})); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Kind(dir); got != kind || err != nil {
		t.Fatal(got, err)
	}
	before, err := m.Usage(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	if before.Inodes < 0 || before.Inodes > 2 || before.Bytes > 2*mib {
		t.Errorf("empty, and %+v in use", before)
	}
	n, err := fill(t, dir)
	if !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) || n > 33*mib || n < 16*mib {
		t.Fatalf("%d bytes went in: %v", n, err)
	}
	use, err := m.Usage(ctx, dir)
	if err != nil || use.Bytes < n-mib || use.Bytes > 34*mib {
		t.Errorf("usage %+v, %v after %d bytes", use, err, n)
	}
	if err := os.WriteFile(filepath.Join(other, "f"), make([]byte, 4*mib), 0o600); err != nil {
		t.Errorf("the limit of one hits another: %v", err)
	}
	var can snapshot.Description
	m.Describe(&can)
	err = m.Set(ctx, dir, snapshot.Limit{Bytes: 64 * mib, Inodes: 200})
	if !can.LimitGrows {
		if !errors.Is(err, errdefs.ErrUnsupported) {
			t.Error(err)
		}
	} else if err != nil {
		t.Error(err)
	} else if more, err := fill(t, dir); more < n+8*mib {
		t.Errorf("after the limit was raised %d bytes instead of %d: %v", more, n, err)
	}
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	checkInodes(t, dir)
	again, err := quota.New(ctx, root, kind)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Open(ctx, dir), again.Remove(dir), again.Remove(dir), m.Remove(other)); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 && left[0].Name() != "lost+found" {
		t.Error(left, err)
	}
	if err := m.Orphans(ctx, func(what string, _ func() error) { t.Errorf("left: %s", what) }); err != nil {
		t.Error(err)
	}
	wantNoDevices(t, root)
}

func checkInodes(t *testing.T, dir string) {
	t.Helper()
	made := 0
	err := mounts.AsRoot(0, func() error {
		for ; made < 5000; made++ {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", made)), nil, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%d files went in: %v", made, err)
	}
}

// wantNoDevices polls: a loop device goes when the kernel has cleaned up.
func wantNoDevices(t *testing.T, root string) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		left = nil
		err := quota.OrphanDevices(root, func(what, file string, _ func() error) { left = append(left, what+" "+file) })
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("loop devices left: %v", left)
}

func TestLoop(t *testing.T) { checkBounded(t, t.TempDir(), snapshot.LimitLoop) }

// TestProject uses the directory that the environment names, which is on a file
// system with project quotas; where there is none it must say so.
func TestProject(t *testing.T) {
	if root := os.Getenv("GANTRY_TEST_PRJQUOTA"); root != "" {
		checkBounded(t, root, snapshot.LimitProject)
		return
	}
	if _, err := quota.New(t.Context(), snapshottest.Tmpfs(t), snapshot.LimitProject); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	for name, c := range map[string]struct {
		kind  snapshot.LimitKind
		limit snapshot.Limit
		want  error
	}{
		"no limits here":  {snapshot.LimitNone, snapshot.Limit{Bytes: mib}, errdefs.ErrUnsupported},
		"negative":        {snapshot.LimitNone, snapshot.Limit{Bytes: -1}, errdefs.ErrInvalid},
		"below need":      {snapshot.LimitLoop, snapshot.Limit{Bytes: mib}, errdefs.ErrInvalid},
		"only inodes":     {snapshot.LimitLoop, snapshot.Limit{Inodes: 10}, errdefs.ErrInvalid},
		"too many inodes": {snapshot.LimitLoop, snapshot.Limit{Bytes: 16 * mib, Inodes: 1 << 40}, errors.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := quota.New(ctx, root, c.kind)
			if err != nil {
				t.Fatal(err)
			}
			err = m.Make(ctx, filepath.Join(root, "d"), c.limit)
			if err == nil || !errors.Is(c.want, errors.ErrUnsupported) && !errors.Is(err, c.want) {
				t.Errorf("got %v", err)
			}
			if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
				t.Error(left, err)
			}
		})
	}
	if _, err := quota.New(ctx, root, "x"); !errors.Is(err, errdefs.ErrInvalid) {
		t.Error(err)
	}
	m := quota.Unlimited(root)
	if err := m.Open(ctx, filepath.Join(root, "absent")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
}

// TestLoopAfterReboot takes the mount away, as a reboot does.
func TestLoopAfterReboot(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	m, err := quota.New(ctx, root, snapshot.LimitLoop)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "d")
	err = m.Make(ctx, dir, snapshot.Limit{Bytes: 16 * mib})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kept"), []byte("x"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Remove(dir); err != nil {
			t.Error(err)
		}
		wantNoDevices(t, root)
	}()
	// Somebody still has the file system: it must not be mounted through a
	// second device.
	hold, err := os.Open(filepath.Join(dir, "kept"))
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := m.Set(ctx, dir, snapshot.Limit{Bytes: 8 * mib}); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("shrinking: %v", err)
	}
	if err := m.Open(ctx, dir); err != nil {
		t.Fatal(err)
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(int(hold.Fd()), &a), unix.Stat(filepath.Join(dir, "kept"), &b)); err != nil || a.Dev != b.Dev {
		t.Errorf("devices %d and %d, %v", a.Dev, b.Dev, err)
	}
}

// TestManyLoops needs more devices than there are from the start.
func TestManyLoops(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	m, err := quota.New(ctx, root, snapshot.LimitLoop)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := m.Make(ctx, dir, snapshot.Limit{Bytes: 16 * mib}); err != nil {
			t.Error(err)
		}
		defer func() {
			if err := m.Remove(dir); err != nil {
				t.Error(err)
			}
		}()
	}
	out, err := exec.Command("df", "-P", filepath.Join(root, "11")).Output()
	if err != nil || !strings.Contains(string(out), filepath.Join(root, "11")) {
		t.Errorf("%s, %v", out, err)
	}
}
