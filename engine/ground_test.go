package engine_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// hostMounts are the places below the host's root that something is mounted on.
func hostMounts(t *testing.T, h *enginetest.Host) (places []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], h.Root+"/") {
			places = append(places, strings.TrimPrefix(f[4], h.Root+"/"))
		}
	}
	return places
}

// inode identifies a namespace.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Stat(path, &st))
	return st.Ino
}

// netOf is the network namespace that a running container is in.
func netOf(t *testing.T, e *engine.Engine) uint64 {
	t.Helper()
	return inode(t, fmt.Sprintf("/proc/%d/ns/net", stateOf(t, e, "c").Process.Pid))
}

// TestNothingIsMountedOnTheHost: a container that runs has its root and its
// namespaces to itself; all that looks into it works all the same, also for an
// engine that has not started it.
func TestNothingIsMountedOnTheHost(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	console(t, e, "c", "up as 1")
	nowhere := func() {
		t.Helper()
		if places := hostMounts(t, h); len(places) > 0 || entries(t, h, "ns")+entries(t, h, "rootfs") > 0 {
			t.Errorf("mounted: %q", places)
		}
	}
	for range 2 {
		nowhere()
		if out, exit := execOutput(t, e, engine.ExecRequest{Args: sh("/bin/id -u; echo $HOME"), User: "root"}); out != "0\n/root\n" {
			t.Errorf("%q %+v", out, exit)
		}
		// what is mounted inside is no part of the disk
		if got := copyOut(t, e, "/proc"); len(got) > 1 {
			t.Errorf("copied %d files of /proc", len(got))
		}
		done()
		e, done = h.Engine(t)
	}
	defer done()
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	unmounted(t, h)
	check(t, e.Start(t.Context(), "c", initRequest))
	nowhere()
	check(t, e.Delete(t.Context(), "c"))
	unmounted(t, h)
	nothing(t, h, e)
}

// TestNetNSPinsTheNetwork: only that has a path on the host, before a start as
// while the container runs, and it is the one of every later start.
func TestNetNSPinsTheNetwork(t *testing.T) {
	for name, running := range map[string]bool{"before the first start": false, "while it runs": true} {
		t.Run(name, func(t *testing.T) {
			h, e, done := fixture(t)
			defer done()
			check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
			if running {
				check(t, e.Start(t.Context(), "c", initRequest))
			}
			path, err := e.NetNS(t.Context(), "c")
			check(t, err)
			if places := hostMounts(t, h); len(places) != 1 || places[0] != "ns/c/net" || entries(t, h, "ns/c") != 1 {
				t.Errorf("mounted: %q", places)
			}
			if !running {
				check(t, e.Start(t.Context(), "c", initRequest))
			}
			pinned := inode(t, path)
			for range 2 {
				if now := netOf(t, e); now != pinned {
					t.Errorf("runs in network namespace %d, %d is pinned", now, pinned)
				}
				console(t, e, "c", "up as 1")
				if out, _ := execOutput(t, e, engine.ExecRequest{Args: sh("/bin/id -u; /bin/cat /proc/sys/net/ipv4/ip_unprivileged_port_start")}); out != "0\n0\n" {
					t.Errorf("inside: %q", out)
				}
				check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
				check(t, e.Start(t.Context(), "c", initRequest))
				if again, err := e.NetNS(t.Context(), "c"); err != nil || again != path || inode(t, path) != pinned {
					t.Errorf("%s, %v", again, err)
				}
			}
			check(t, e.Delete(t.Context(), "c"))
			nothing(t, h, e)
		})
	}
}

// TestNamespacesOfAStart: nobody has asked for them, so each start has its own.
func TestNamespacesOfAStart(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	run(t, e, "c")
	host := inode(t, "/proc/self/ns/net")
	first := netOf(t, e)
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	check(t, e.Start(t.Context(), "c", initRequest))
	if second := netOf(t, e); first == host || second == host {
		t.Errorf("network namespaces %d and %d, the host's is %d", first, second, host)
	}
	check(t, e.Delete(t.Context(), "c"))
}

// TestTheEarlierLayoutIsTakenOver: a container that runs with its root and both
// namespaces mounted on the host keeps the network, and the rest goes.
func TestTheEarlierLayoutIsTakenOver(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	console(t, e, "c", "up as 1")
	net, pid := netOf(t, e), stateOf(t, e, "c").Process.Pid
	done()
	at := func(parts ...string) string { return filepath.Join(append([]string{h.Root}, parts...)...) }
	check(t, errors.Join(os.Mkdir(at("rootfs", "c"), 0o700), os.Mkdir(at("ns", "c"), 0o700)))
	check(t, unix.Mount("gantry:c", at("rootfs", "c"), "tmpfs", 0, "size=4k"))
	for _, name := range []string{"user", "net"} {
		check(t, os.WriteFile(at("ns", "c", name), nil, 0o600))
		check(t, unix.Mount(fmt.Sprintf("/proc/%d/ns/%s", pid, name), at("ns", "c", name), "", unix.MS_BIND, ""))
	}
	e, done = h.Engine(t)
	defer done()
	if places := hostMounts(t, h); len(places) != 1 || places[0] != "ns/c/net" || entries(t, h, "rootfs") != 0 || entries(t, h, "ns/c") != 1 {
		t.Errorf("mounted: %q", places)
	}
	if out, _ := execOutput(t, e, engine.ExecRequest{Args: sh("/bin/id -u"), User: "root"}); out != "0\n" {
		t.Errorf("inside: %q", out)
	}
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	check(t, e.Start(t.Context(), "c", initRequest))
	if now := netOf(t, e); now != net {
		t.Errorf("network namespace %d, was %d", now, net)
	}
	check(t, e.Delete(t.Context(), "c"))
	nothing(t, h, e)
}

// TestAStartEndsCopies: the root that they read becomes the container's, with
// things mounted in it that are no part of its disk.
func TestAStartEndsCopies(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	slow, err := e.CopyOut(t.Context(), "c", engine.CopyRequest{Path: "/"})
	check(t, err)
	defer slow.Close()
	_, err = tar.NewReader(slow).Next()
	check(t, err)
	check(t, e.Start(t.Context(), "c", initRequest))
	if _, err := io.Copy(io.Discard, slow); !errors.Is(err, errdefs.ErrAborted) {
		t.Errorf("copy out: %v", err)
	}
	console(t, e, "c", "up as 1")
	check(t, e.Delete(t.Context(), "c"))
	unmounted(t, h)
}
