package local_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/drivertest"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// mover is an instance that moves from one rig to another.
type mover struct {
	t    *testing.T
	a, b *rig
	req  driver.SpawnRequest
	// none is what b has before, half what it may have of a move that failed.
	none []string
}

func newMover(t *testing.T, change ...func(*driver.SpawnRequest)) *mover {
	t.Helper()
	m := &mover{t: t, a: newRig(t), b: newRig(t), req: request()}
	for _, f := range change {
		f(&m.req)
	}
	m.none = m.b.residue(t)
	check(t, m.a.driver.Spawn(t.Context(), m.req))
	m.write(m.a, "kept", "written before")
	return m
}

func (m *mover) write(r *rig, name, text string) {
	m.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(m.t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text))}))
	_, err := io.WriteString(w, text)
	check(m.t, errors.Join(err, w.Close()))
	_, err = r.engine.CopyIn(m.t.Context(), engine.ContainerID(m.req.UUID), engine.CopyRequest{Path: "/root"}, &b)
	check(m.t, err)
}

func (m *mover) read(r *rig, name string) string {
	m.t.Helper()
	out, err := r.engine.CopyOut(m.t.Context(), engine.ContainerID(m.req.UUID), engine.CopyRequest{Path: name})
	check(m.t, err)
	defer out.Close()
	tr := tar.NewReader(out)
	_, err = tr.Next()
	check(m.t, err)
	raw, err := io.ReadAll(tr)
	check(m.t, err)
	return string(raw)
}

// offer is the part before the instance comes.
func (m *mover) offer() (info string) {
	m.t.Helper()
	peer, err := m.b.driver.ExpectMigration(m.t.Context(), m.req.UUID)
	check(m.t, err)
	info, err = m.a.driver.MigrateDiskAndPowerOff(m.t.Context(), driver.MigrateRequest{UUID: m.req.UUID, Peer: peer, Old: m.req.Flavor, New: m.req.Flavor})
	check(m.t, err)
	return info
}

func (m *mover) arrive(info string, on bool) error {
	m.t.Helper()
	req := driver.FinishMigrationRequest{SpawnRequest: m.req, Moved: true, DiskInfo: info, Old: m.req.Flavor, PowerOn: on}
	req.Network, req.Events = drivertest.Ready(port(m.t)), &drivertest.Events{}
	return m.b.driver.FinishMigration(m.t.Context(), req)
}

func (m *mover) state(r *rig, want driver.PowerState) {
	m.t.Helper()
	if info, err := r.driver.Info(m.t.Context(), m.req.UUID); err != nil || info.State != want {
		m.t.Errorf("%s, %v, want %s", info.State, err, want)
	}
}

// failed checks that b has nothing but the expectation, and that the instance
// goes on where it was.
func (m *mover) failed() {
	m.t.Helper()
	want := slices.Sorted(slices.Values(append(slices.Clone(m.none), "file migrations "+string(m.req.UUID)+".in")))
	if got := m.b.residue(m.t); !slices.Equal(got, want) {
		m.t.Errorf("there is %q", got)
	}
	check(m.t, m.b.driver.Destroy(m.t.Context(), m.req.UUID))
	if got := m.b.residue(m.t); !slices.Equal(got, m.none) {
		m.t.Errorf("left there: %q", got)
	}
	check(m.t, m.a.driver.FinishRevertMigration(m.t.Context(), driver.RevertMigrationRequest{UUID: m.req.UUID, Flavor: m.req.Flavor, PowerOn: true}))
	m.state(m.a, driver.PowerRunning)
	if got := m.read(m.a, "/root/kept"); got != "written before" {
		m.t.Errorf("here: %q", got)
	}
}

// All of an instance goes, to a host that can have its image from nobody else.
func TestMoveWithImageAndDrive(t *testing.T) {
	const note = "openstack/latest/note"
	m := newMover(t, func(req *driver.SpawnRequest) {
		req.Drive = func(objects.NetworkInfo) ([]driver.File, error) {
			return []driver.File{{Path: note, Content: []byte("of the drive")}}, nil
		}
	})
	delete(m.b.images.data, bootable)
	check(t, m.arrive(m.offer(), true))
	m.state(m.b, driver.PowerRunning)
	if got := m.read(m.b, "/root/kept"); got != "written before" {
		t.Errorf("there: %q", got)
	}
	drive, err := os.ReadFile(filepath.Join(m.b.host.Root, "config-drives", string(m.req.UUID)))
	check(t, err)
	if here := must(os.ReadFile(filepath.Join(m.a.host.Root, "config-drives", string(m.req.UUID))))(t); !bytes.Equal(drive, here) {
		t.Error("the config drive is another one")
	}
	s := must(m.b.engine.State(t.Context(), engine.ContainerID(m.req.UUID)))(t)
	if !strings.HasPrefix(s.Image, bootable+":") || s.Image == bootable+":aa" {
		t.Errorf("the image is called %s, as if it were the image service's", s.Image)
	}
	check(t, m.a.driver.ConfirmMigration(t.Context(), m.req.UUID, true))

	// and from there to a third, under the name that it had
	third := newRig(t)
	m.a, m.b = m.b, third
	m.write(m.a, "more", "written there")
	check(t, m.arrive(m.offer(), true))
	if got := m.read(m.b, "/root/more"); got != "written there" {
		t.Errorf("on the third: %q", got)
	}
	if s := must(m.b.engine.State(t.Context(), engine.ContainerID(m.req.UUID)))(t); s.Image != bootable+":aa" {
		t.Errorf("on the third the image is %s", s.Image)
	}
}

// A stopped instance is there as one that is stopped, also after a restart.
func TestMoveOfAStoppedInstance(t *testing.T) {
	m := newMover(t)
	check(t, m.a.driver.PowerOff(t.Context(), m.req.UUID, driver.PowerOffOptions{}))
	info := m.offer()
	check(t, m.arrive(info, false))
	m.state(m.b, driver.PowerShutdown)
	m.b.end()
	m.b.open(t)
	if here := must(m.b.driver.Recover(t.Context()))(t); !slices.Contains(here, m.req.UUID) {
		t.Errorf("after a restart there are %v", here)
	}
	m.state(m.b, driver.PowerShutdown)
	check(t, m.b.driver.PowerOn(t.Context(), driver.PowerOnRequest{UUID: m.req.UUID, VIFs: port(t)}))
	if got := m.read(m.b, "/root/kept"); got != "written before" {
		t.Errorf("there: %q", got)
	}
}

// Both services may restart between the steps: the keys are on their disks.
func TestMoveAcrossRestarts(t *testing.T) {
	m := newMover(t)
	info := m.offer()
	m.a.end()
	m.a.open(t)
	must(m.a.driver.Recover(t.Context()))(t)
	m.b.end()
	m.b.open(t)
	must(m.b.driver.Recover(t.Context()))(t)
	check(t, m.arrive(info, true))
	m.state(m.b, driver.PowerRunning)
	check(t, m.arrive("", true))
	m.state(m.a, driver.PowerShutdown)
}

// What fails leaves nothing there, and all of it here.
func TestMoveFails(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*testing.T, *mover)
		class error
	}{
		"the offer is withdrawn": {func(t *testing.T, m *mover) {
			check(t, m.a.driver.FinishRevertMigration(t.Context(), driver.RevertMigrationRequest{UUID: m.req.UUID, Flavor: m.req.Flavor}))
		}, errdefs.ErrForbidden},
		"it is expected with another key": {func(t *testing.T, m *mover) {
			must(m.b.driver.ExpectMigration(t.Context(), m.req.UUID))(t)
		}, errdefs.ErrForbidden},
		"it runs where it was": {func(t *testing.T, m *mover) {
			check(t, m.a.driver.PowerOn(t.Context(), driver.PowerOnRequest{UUID: m.req.UUID, VIFs: port(t)}))
		}, errdefs.ErrConflict},
		"after the image": {func(t *testing.T, _ *mover) { arm(t, "move.image") }, failpoint.ErrInjected},
		"in the disk":     {func(t *testing.T, _ *mover) { arm(t, "engine.create.written") }, failpoint.ErrInjected},
		"after the disk":  {func(t *testing.T, _ *mover) { arm(t, "move.disk") }, failpoint.ErrInjected},
		"with the ports":  {func(t *testing.T, _ *mover) { arm(t, "move.connected") }, failpoint.ErrInjected},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMover(t)
			info := m.offer()
			tc.spoil(t, m)
			if err := m.arrive(info, true); !errors.Is(err, tc.class) {
				t.Errorf("error %v, want the class %q", err, tc.class)
			}
			m.failed()
		})
	}
}

func arm(t *testing.T, point string) {
	t.Helper()
	check(t, failpoint.Set(point, "error"))
	t.Cleanup(func() { check(t, failpoint.Set(point, "")) })
}

// Words of another host that make no sense are refused before anything is done.
func TestMoveOfNonsense(t *testing.T) {
	m := newMover(t)
	_, err := m.a.driver.MigrateDiskAndPowerOff(t.Context(), driver.MigrateRequest{UUID: m.req.UUID, Peer: "nobody", Old: m.req.Flavor, New: m.req.Flavor})
	if !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a peer without a key: %v", err)
	}
	m.state(m.a, driver.PowerRunning)
	must(m.b.driver.ExpectMigration(t.Context(), m.req.UUID))(t)
	for info, class := range map[string]error{
		"": errdefs.ErrNotFound, "{": errdefs.ErrInvalid, "{}": errdefs.ErrUnsupported, `{"version":2,"image":"x"}`: errdefs.ErrUnsupported,
		`{"version":1,"image":"x","key":"ed25519:AA"}`: errdefs.ErrInvalid,
	} {
		if err := m.arrive(info, true); !errors.Is(err, class) {
			t.Errorf("disk info %q: %v", info, err)
		}
	}
	m.failed()
}

// An offer of an instance that is gone goes with the next start.
func TestMovesAreSwept(t *testing.T) {
	m := newMover(t)
	m.offer()
	check(t, m.a.engine.Delete(t.Context(), engine.ContainerID(m.req.UUID)))
	must(m.a.driver.Recover(t.Context()))(t)
	if left := must(filepath.Glob(filepath.Join(m.a.host.Root, "migrations", "*")))(t); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	must(m.b.driver.Recover(t.Context()))(t)
	if left := must(filepath.Glob(filepath.Join(m.b.host.Root, "migrations", "*")))(t); len(left) != 1 {
		t.Errorf("it is not expected any more: %q", left)
	}
	file := filepath.Join(m.b.host.Root, "migrations", string(m.req.UUID)+".in")
	check(t, os.Chtimes(file, time.Time{}, time.Now().Add(-25*time.Hour)))
	must(m.b.driver.ExpectMigration(t.Context(), drivertest.NewUUID()))(t)
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is expected still: %v", err)
	}
}
