package processtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// Races checks set-ups that somebody with a part of the container's files in
// hand tries to lead astray. newRunner is called once for each test.
func Races(t *testing.T, newRunner func(t *testing.T) process.Runner) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, real)
	}{
		{"MountPointInVolume", testMountPointRace},
		{"MaskedPathInVolume", testMaskRace},
		{"DevIsVolume", testDevIsVolume},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := NewFixture(t)
			spec := func(t *testing.T, args ...string) process.Spec { return f.Spec(t, args...) }
			tt.run(t, real{Harness{newRunner(t), spec}, f})
		})
	}
}

// attempts is how often a race is run.
const attempts = 100

// exchange swaps two names of a directory over and over until stop is called.
func exchange(t *testing.T, dir, a, b string) (stop func()) {
	t.Helper()
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, a), unix.AT_FDCWD, filepath.Join(dir, b), unix.RENAME_EXCHANGE); err != nil {
				t.Errorf("exchange %s and %s: %v", a, b, err)
				return
			}
		}
	})
	return func() { close(end); wg.Wait() }
}

// race starts over and over; a start may fail, but only with a typed error.
func (r real) race(t *testing.T, want string, script string, check func(), changes ...func(*process.Spec)) {
	t.Helper()
	before, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for range attempts {
		spec := r.Spec(t, "sh", "-c", script)
		for _, change := range changes {
			change(&spec)
		}
		if _, err := r.Runner.Start(bounded(t), "race", spec); err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Fatalf("start: %v", err)
			}
			continue
		}
		wait(t, r.Harness, "race")
		if out := tail(t, spec.ConsoleLog); out != want {
			t.Fatalf("output %q, want %q", out, want)
		}
		Reap(t, r.Runner, "race")
	}
	check()
	after, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Count(string(after), r.fixture.Rootfs) != strings.Count(string(before), r.fixture.Rootfs) {
		t.Errorf("mounts of the host have changed: %s", after)
	}
}

// testMountPointRace: CVE-2021-30465. The mount point of one volume lies in
// another, where a neighbour swaps it for a link to the host.
func testMountPointRace(t *testing.T, r real) {
	volume, dir := source(t), source(t)
	host, check := canary(t)
	must(t, os.Mkdir(filepath.Join(volume, "place"), 0o755))
	must(t, os.Symlink(host, filepath.Join(volume, "link")))
	must(t, chownAll(volume))
	defer exchange(t, volume, "place", "link")()
	r.race(t, "kernel\n", "test -e /proc/self/status && test ! -e /proc/self/file && echo kernel", check,
		with(bind(volume, "/volume"), bind(dir, "/volume/place")))
}

// testMaskRace: CVE-2025-31133, CVE-2025-52881. A path to mask is swapped for a
// link to a file of the kernel, and /dev/null of the image is such a link.
func testMaskRace(t *testing.T, r real) {
	volume := source(t)
	_, check := canary(t)
	must(t, os.WriteFile(filepath.Join(volume, "secret"), []byte("secret"), 0o644))
	must(t, os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(volume, "link")))
	must(t, chownAll(volume))
	defer exchange(t, volume, "secret", "link")()
	r.race(t, "1:3\n1:3\n", "stat -c %t:%T /proc/timer_list /proc/uptime", check, with(bind(volume, "/volume")), func(s *process.Spec) {
		s.MaskedPaths = []string{"/volume/secret", "/proc/timer_list", "/proc/uptime"}
	})
}

// testDevIsVolume: a /dev that a neighbour shares is no place for links to
// mislead the set-up (CVE-2025-52565).
func testDevIsVolume(t *testing.T, r real) {
	volume := source(t)
	host, check := canary(t)
	for name, target := range map[string]string{
		"null": "/proc/sys/kernel/core_pattern", "console": filepath.Join(host, "secret"), "ptmx": filepath.Join(host, "secret"),
		"pts": host, "shm": "/proc/self/attr", "x": host,
	} {
		must(t, os.Symlink(target, filepath.Join(volume, name)))
	}
	must(t, chownAll(volume))
	hostile := func(s *process.Spec) {
		with(bind(volume, "/dev"))(s)
		s.Mounts = append(s.Mounts[:1:1], append(s.Mounts[5:], s.Mounts[2], s.Mounts[3])...)
		s.MaskedPaths = []string{"/proc/uptime"}
	}
	r.refuse(t, "terminals in a link", errdefs.ErrInvalid, "dev/pts", hostile)
	check()
	noTerminal := func(s *process.Spec) {
		hostile(s)
		s.Terminal, s.ConsoleLog, s.Mounts = false, "", s.Mounts[:len(s.Mounts)-2]
	}
	spec := r.Spec(t, "sh", "-c", "test $(stat -c %t:%T /proc/uptime) = 1:3")
	noTerminal(&spec)
	start(t, r.Harness, "volume", spec)
	if e := wait(t, r.Harness, "volume"); e.Code != 0 {
		t.Errorf("mask: %+v", e)
	}
	r.refuse(t, "device in a link", errdefs.ErrInvalid, "device", noTerminal, func(s *process.Spec) {
		s.Devices = []process.Device{{Path: "/dev/x/null", Type: 'c', Major: 1, Minor: 3}}
	})
	check()
}
