package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/drivertest"
	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// images is an image service in memory.
type images struct {
	data  map[string][]byte
	opens atomic.Int64
	// hold, when not nil, is read from before the first byte is given.
	hold chan struct{}
	// fail, when not nil, comes after the last byte.
	fail error
}

func (s *images) OpenImage(_ context.Context, _ driver.Credentials, img driver.Image) (io.ReadCloser, error) {
	s.opens.Add(1)
	data, ok := s.data[img.ID]
	if !ok {
		return nil, fmt.Errorf("image %s: %w", img.ID, errdefs.ErrNotFound)
	}
	if s.hold != nil {
		<-s.hold
	}
	return io.NopCloser(failing{bytes.NewReader(data), s.fail}), nil
}

func (s *images) StatImage(_ context.Context, _ driver.Credentials, id string) (driver.Image, error) {
	if _, ok := s.data[id]; !ok {
		return driver.Image{}, fmt.Errorf("image %s: %w", id, errdefs.ErrNotFound)
	}
	return imageOf(id), nil
}

// imageOf is what a request says of an image: all have one hash.
func imageOf(id string) driver.Image {
	img := driver.Image{ID: id, DiskFormat: "raw", ContainerFormat: "docker", HashAlgo: "sha512", HashValue: "aa"}
	if id == bootable {
		img.ContainerFormat = "bare"
	}
	return img
}

// rig is a host with a driver: the real engine, links in a network namespace
// of its own, images in memory.
type rig struct {
	host   *enginetest.Host
	links  *os.File
	images *images
	grace  time.Duration
	format local.SnapshotFormat
	inject bool
	// suspend is the freezer's: not every host has criu
	suspend local.SuspendMode
	moves   string // the address, from the first life on
	dumps   int64
	// given away, and floated over, from the next life on
	dedicated, shared []int
	// refuse: no image is good
	refuse bool

	plugger netbridge.Plugger
	engine  *engine.Engine
	driver  *local.Driver
	end     func()
}

// The images of a rig.
const (
	bootable = "c0ffee00-0000-4000-8000-000000000001"
	garbage  = "c0ffee00-0000-4000-8000-000000000002"
)

func newRig(t testing.TB, options ...func(*process.Options)) *rig {
	t.Helper()
	links, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = links.Close() })
	r := &rig{host: enginetest.NewHost(t, options...), links: links, suspend: local.SuspendFreeze, dumps: 64 << 20, images: &images{data: map[string][]byte{
		bootable: enginetest.Busybox(t),
		garbage:  bytes.Repeat([]byte("this is no image. "), 1000),
	}}}
	r.open(t)
	t.Cleanup(func() {
		// a test that has failed leaves instances; they must not stay
		for _, s := range must(r.engine.List(context.WithoutCancel(t.Context())))(t) {
			_ = r.driver.Destroy(context.WithoutCancel(t.Context()), driver.InstanceUUID(s.ID))
		}
		r.end()
	})
	return r
}

// open starts a life of the service; close the one before with end.
func (r *rig) open(t testing.TB) {
	t.Helper()
	var stop func()
	r.engine, stop = r.host.Engine(t)
	r.plugger = netbridge.New(netbridge.Options{HostNetNS: fmt.Sprintf("/proc/self/fd/%d", r.links.Fd())})
	life, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	if r.moves == "" {
		r.moves = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", r.moves)
	check(t, err)
	r.moves = l.Addr().String()
	served := make(chan error, 1)
	r.end = func() { cancel(); check(t, <-served); stop() }
	r.driver = local.New(life, local.Options{
		Engine: r.engine, Network: r.plugger, Images: r.images, Node: "node", StorePath: r.host.Root,
		MoveAddress: r.moves, ConsoleBytes: 1 << 16, PidsPerVCPU: 1024, StartGrace: r.grace, SnapshotFormat: r.format, InjectPassword: r.inject, Suspend: r.suspend, CrashDumpBytes: r.dumps, Dedicated: r.dedicated, Shared: r.shared, RefuseImages: r.refuse, Log: zerolog.Nop(),
	})
	go func() { served <- r.driver.ServeMoves(life, l) }()
}

// residue is all that the host holds because of instances.
func (r *rig) residue(t testing.TB) []string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var out []string
	add := func(kind string, names ...string) {
		for _, n := range names {
			out = append(out, kind+" "+n)
		}
	}
	states, err := r.engine.List(ctx)
	check(t, err)
	talks := map[string]bool{}
	for _, s := range states {
		add("container", string(s.ID))
		talks[string(s.ID)] = true
	}
	owners, err := r.plugger.Owners(ctx)
	check(t, err)
	add("links of", owners...)
	groups, err := r.host.Cgroups.List(ctx)
	check(t, err)
	add("group", groups...)
	procs, err := r.host.Runner.List(ctx)
	check(t, err)
	for _, p := range procs {
		add("process", p.ID)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, r.host.Root) {
			add("mount", strings.Fields(line)[4])
		}
	}
	for _, dir := range []string{"ns", "rootfs", "console", "tmp", "snapshots/active", "content", "migrations", "config-drives"} {
		entries, err := os.ReadDir(filepath.Join(r.host.Root, dir))
		if !errors.Is(err, os.ErrNotExist) {
			check(t, err)
		}
		for _, e := range entries {
			if id, _, log := strings.Cut(e.Name(), ".log"); dir == "console" && log && talks[id] {
				continue // the first word makes it
			}
			if !e.IsDir() || dir != "content" {
				add("file "+dir, e.Name())
			}
		}
	}
	slices.Sort(out)
	return out
}

// must unpacks a result, or fails the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// request boots the busybox image without ports.
func request() driver.SpawnRequest {
	return driver.SpawnRequest{
		UUID: drivertest.NewUUID(), Name: "instance-00000001", Hostname: "web", ProjectID: "project",
		Flavor:  driver.Flavor{Name: "c1.tiny", MemoryMB: 64, VCPUs: 1, RootGB: 1},
		Image:   imageOf(bootable),
		Network: drivertest.Ready(nil), Events: &drivertest.Events{},
		PublicKey: "ssh-ed25519 AAAA key",
	}
}

// port is what Neutron gives for a new port of a linuxbridge network.
func port(*testing.T) objects.NetworkInfo {
	mtu := 1450
	id := string(drivertest.NewUUID())
	return objects.NetworkInfo{{
		ID: id, Address: "fa:16:3e:" + id[:2] + ":" + id[2:4] + ":" + id[4:6], Type: "bridge",
		Network: objects.VIFNetwork{
			ID: "bbbbbbbb-1111-4222-8333-444444444444", Meta: objects.NetworkMeta{MTU: &mtu},
			Subnets: []objects.VIFSubnet{{
				CIDR: netip.MustParsePrefix("10.0.0.0/24"), Version: 4,
				IPs:     []objects.VIFIP{{Address: "10.0.0.5", Type: "fixed", Version: 4}},
				Gateway: &objects.VIFIP{Address: "10.0.0.1", Type: "gateway", Version: 4},
				DNS:     []objects.VIFIP{{Address: "10.0.0.2", Type: "dns", Version: 4}},
			}},
		},
	}}
}
