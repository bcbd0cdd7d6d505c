package local_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/drivertest"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// again starts a new life of the service with another grace.
func (r *rig) again(t testing.TB, grace time.Duration) {
	t.Helper()
	r.end()
	r.grace = grace
	r.open(t)
}

// console polls an instance's console for a text.
func (r *rig) console(t *testing.T, uuid driver.InstanceUUID, want string) string {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var out string
	for range 12000 {
		out = string(must(r.driver.ConsoleOutput(t.Context(), uuid, -1))(t))
		if strings.Contains(out, want) {
			return out
		}
		<-tick.C
	}
	t.Fatalf("the console says %q, not %q", out, want)
	return ""
}

func asBefore(t *testing.T, r *rig, before []string) {
	t.Helper()
	if after := r.residue(t); !slices.Equal(before, after) {
		t.Errorf("left on the host:\n  before %q\n  after  %q", before, after)
	}
}

// withPort is a request with one port.
func withPort(t *testing.T) driver.SpawnRequest {
	t.Helper()
	req := request()
	req.Network = drivertest.Ready(port(t))
	return req
}

// TestEachStepCanFail fails every step of a boot in turn: the error comes
// through, the host is as before, and the next boot works.
func TestEachStepCanFail(t *testing.T) {
	r := newRig(t)
	before := r.residue(t)
	for _, point := range []string{
		"engine.import.record", // first: there is no image yet
		"spawn.image", "engine.create.record", "engine.create.disk", "spawn.create",
		"spawn.plugged", "spawn.network", "engine.start.begin", "engine.start.record", "spawn.start",
	} {
		t.Run(point, func(t *testing.T) {
			check(t, failpoint.Set(point, "error"))
			req := withPort(t)
			events := &drivertest.Events{}
			req.Events = events
			err := r.driver.Spawn(t.Context(), req)
			check(t, failpoint.Set(point, ""))
			if !errors.Is(err, failpoint.ErrInjected) || !strings.Contains(err.Error(), string(req.UUID)) {
				t.Errorf("Spawn: %v", err)
			}
			if events.Open() != 0 {
				t.Error("an expectation was left open")
			}
			asBefore(t, r, before)
			if _, err := r.driver.Info(t.Context(), req.UUID); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("Info: %v", err)
			}
			check(t, r.driver.Spawn(t.Context(), req))
			check(t, r.driver.Destroy(t.Context(), req.UUID))
			asBefore(t, r, before)
		})
	}
	layers := must(os.ReadDir(filepath.Join(r.host.Root, "snapshots/layers")))(t)
	if len(layers) != 1 || r.images.opens.Load() != 2 {
		t.Errorf("%d layers after %d downloads", len(layers), r.images.opens.Load())
	}
}

func TestSimultaneousBootsShareOneDownload(t *testing.T) {
	r := newRig(t)
	r.images.hold = make(chan struct{})
	reqs := []driver.SpawnRequest{withPort(t), withPort(t), request()}
	errs := make([]error, len(reqs))
	var wg sync.WaitGroup
	for i, req := range reqs {
		wg.Go(func() { errs[i] = r.driver.Spawn(t.Context(), req) })
	}
	close(r.images.hold)
	wg.Wait()
	check(t, errors.Join(errs...))
	if n := r.images.opens.Load(); n != 1 {
		t.Errorf("%d downloads", n)
	}
	for _, req := range reqs {
		check(t, r.driver.Destroy(t.Context(), req.UUID))
	}
}

func TestUnbootableRequests(t *testing.T) {
	r := newRig(t)
	r.again(t, time.Hour) // as long as it takes the first process to fail
	check(t, r.driver.Spawn(t.Context(), quick()))
	for _, s := range must(r.engine.List(t.Context()))(t) {
		check(t, r.driver.Destroy(t.Context(), driver.InstanceUUID(s.ID)))
	}
	before := r.residue(t)
	command := func(line string) func(*driver.SpawnRequest) {
		return func(req *driver.SpawnRequest) { req.Image.Properties = map[string]string{"os_command_line": line} }
	}
	vif := func(kind string) func(*driver.SpawnRequest) {
		return func(req *driver.SpawnRequest) {
			vifs := port(t)
			vifs[0].Type = kind
			req.Network = drivertest.Ready(vifs)
		}
	}
	for name, tc := range map[string]struct {
		change func(*driver.SpawnRequest)
		class  error
		public string
	}{
		"unknown image":         {func(q *driver.SpawnRequest) { q.Image.ID = "none" }, errdefs.ErrNotFound, ""},
		"no image at all":       {func(q *driver.SpawnRequest) { q.Image.ID = garbage }, errdefs.ErrInvalid, ""},
		"another format":        {func(q *driver.SpawnRequest) { q.Image.DiskFormat, q.Image.HashValue = "vhd", "cc" }, errdefs.ErrInvalid, "vhd"},
		"malformed command":     {command(`"`), errdefs.ErrInvalid, "malformed"},
		"missing command":       {command("/bin/nowhere"), errdefs.ErrInvalid, "/bin/nowhere"},
		"no command of a path":  {command("nowhere"), errdefs.ErrInvalid, "nowhere"},
		"command fails at once": {command(`sh -c "echo I am broken; exit 3"`), errdefs.ErrInvalid, "status 3. Its last words: I am broken"},
		"command kills itself":  {command(`sh -c "exit 137"`), errdefs.ErrInvalid, "status 137"},
		"unknown runtime": {func(q *driver.SpawnRequest) {
			q.Flavor.ExtraSpecs = map[string]string{"gantry:runtime": "nowhere"}
		}, errdefs.ErrInvalid, "runtime"},
		"disk too small":         {func(q *driver.SpawnRequest) { q.Flavor.EphemeralGB = 1 }, errdefs.ErrInvalid, "ephemeral"},
		"file with a bad path":   {func(q *driver.SpawnRequest) { q.Files = []driver.File{{Path: "../x"}} }, errdefs.ErrInvalid, "../x"},
		"file over a directory":  {func(q *driver.SpawnRequest) { q.Files = []driver.File{{Path: "/etc", Content: []byte("x")}} }, nil, ""},
		"file below a file":      {func(q *driver.SpawnRequest) { q.Files = []driver.File{{Path: "/bin/sh/x", Content: []byte("x")}} }, nil, ""},
		"port that is not bound": {vif("binding_failed"), errdefs.ErrUnavailable, "Binding failed"},
		"port of a foreign kind": {vif("macvtap"), errdefs.ErrUnsupported, "macvtap"},
		"port without a mac": {func(q *driver.SpawnRequest) {
			vifs := port(t)
			vifs[0].Address = ""
			q.Network = drivertest.Ready(vifs)
		}, errdefs.ErrInvalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			req := withPort(t)
			tc.change(&req)
			err := r.driver.Spawn(t.Context(), req)
			if err == nil || tc.class != nil && !errors.Is(err, tc.class) {
				t.Errorf("error %v, want %v", err, tc.class)
			}
			if text := errdefs.PublicText(err, ""); !strings.Contains(text, tc.public) {
				t.Errorf("tenants read %q, want %q", text, tc.public)
			}
			asBefore(t, r, before)
		})
	}
}

// quick is a request whose guest ends at once with success.
func quick() driver.SpawnRequest {
	req := request()
	req.Image.Properties = map[string]string{"os_command_line": "/bin/true"}
	return req
}

// A guest that ends at once with success is a good build.
func TestGuestThatIsDoneAtOnce(t *testing.T) {
	r := newRig(t)
	r.again(t, time.Hour)
	req := quick()
	check(t, r.driver.Spawn(t.Context(), req))
	if info := must(r.driver.Info(t.Context(), req.UUID))(t); info.State != driver.PowerShutdown || info.Reason != "exited with status 0" {
		t.Errorf("%+v", info)
	}
	if ev := <-r.driver.Events(); ev.UUID != req.UUID || ev.Reason != "exited with status 0" {
		t.Errorf("event %+v", ev)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

func TestDamagedDownload(t *testing.T) {
	r := newRig(t)
	before := r.residue(t)
	good := r.images.data[bootable]
	for name, cut := range map[string]int{"nothing": 0, "within the header": 100, "within a file": 40960} {
		r.images.data[bootable] = good[:cut]
		if err := r.driver.Spawn(t.Context(), request()); err == nil {
			t.Errorf("%s: booted", name)
		}
		asBefore(t, r, before)
	}
	r.images.data[bootable] = good
	r.images.fail = errdefs.ErrCorrupt // what a hash that differs is
	if err := r.driver.Spawn(t.Context(), request()); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("differing hash: %v", err)
	}
	asBefore(t, r, before)
	r.images.fail = nil
	req := request()
	check(t, r.driver.Spawn(t.Context(), req))
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// failing gives its data and then its error.
type failing struct {
	io.Reader
	err error
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if errors.Is(err, io.EOF) && f.err != nil {
		err = f.err
	}
	return n, err
}

// TestGuestFindsItsNetworkAndFiles looks from the inside, at the first moment.
func TestGuestFindsItsNetworkAndFiles(t *testing.T) {
	r := newRig(t)
	req := request()
	vifs := append(port(t), port(t)...)
	vifs[1].Network.ID = "cccccccc-1111-4222-8333-444444444444"
	vifs[1].Network.Subnets = nil
	req.Network = drivertest.Ready(vifs)
	req.Files = []driver.File{{Path: "/srv/deep/told", Content: []byte("injected\n")}}
	req.Image.Properties = map[string]string{
		"os_command_line": `sh -c "ip addr; ip route; hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf /srv/deep/told /root/.ssh/authorized_keys; echo done; exec sleep 1000"`,
	}
	check(t, r.driver.Spawn(t.Context(), req))
	out := r.console(t, req.UUID, "done")
	for _, want := range []string{
		"inet 10.0.0.5/24", "mtu 1450", "link/ether " + vifs[0].Address, "link/ether " + vifs[1].Address,
		"default via 10.0.0.1 dev eth0", "web", "10.0.0.5\tweb", "nameserver 10.0.0.2", "injected", "ssh-ed25519 AAAA key",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if d := must(r.driver.Diagnostics(t.Context(), req.UUID))(t); len(d.NICs) != 2 || d.NumCPUs != 1 || d.MemoryMaxBytes != 64<<20 {
		t.Errorf("diagnostics %+v", d)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// TestRebootKeepsNamespaceAndDisk: addresses and links survive, and the disk too.
func TestRebootKeepsNamespaceAndDisk(t *testing.T) {
	r := newRig(t)
	req := request()
	vifs := port(t)
	req.Network = drivertest.Ready(vifs)
	req.Image.Properties = map[string]string{"os_command_line": `sh -c "cat /kept; echo once >> /kept; echo ready; exec sleep 1000"`}
	check(t, r.driver.Spawn(t.Context(), req))
	r.console(t, req.UUID, "ready")
	inode := func() uint64 {
		path := must(r.engine.NetNS(t.Context(), engine.ContainerID(req.UUID)))(t)
		var st unix.Stat_t
		check(t, unix.Stat(path, &st))
		return st.Ino
	}
	before := inode()
	check(t, r.driver.Reboot(t.Context(), driver.RebootRequest{UUID: req.UUID, Type: driver.RebootHard, VIFs: vifs}))
	out := r.console(t, req.UUID, "once")
	if after := inode(); after != before {
		t.Errorf("another namespace; console %q", out)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// TestRecoverRemovesLinksOfTheUnknown: an owner that no instance is goes, with what
// it has.
func TestRecoverRemovesLinksOfTheUnknown(t *testing.T) {
	r := newRig(t)
	before := r.residue(t)
	req := withPort(t)
	check(t, r.driver.Spawn(t.Context(), req))
	check(t, r.engine.Stop(t.Context(), engine.ContainerID(req.UUID), engine.StopRequest{}))
	// the container goes without its links, as if a Destroy had been cut off;
	// a second guest's namespace holds the peer, or the kernel would take both
	other := must(r.engine.NetNS(t.Context(), engine.ContainerID(req.UUID)))(t)
	hold := must(os.Open(other))(t)
	defer hold.Close()
	check(t, r.engine.Delete(t.Context(), engine.ContainerID(req.UUID)))
	if got := r.residue(t); !slices.Equal(got, []string{"links of " + string(req.UUID)}) {
		t.Fatalf("left: %q", got)
	}
	r.again(t, 0)
	if found := must(r.driver.Recover(t.Context()))(t); len(found) != 0 {
		t.Errorf("found %v", found)
	}
	asBefore(t, r, before)
}

// TestRecoverRemovesTheHalfMade: a Spawn that was cut off before the first
// process leaves a container that never ran, and its links.
func TestRecoverRemovesTheHalfMade(t *testing.T) {
	r := newRig(t)
	whole := request()
	check(t, r.driver.Spawn(t.Context(), whole))
	before := r.residue(t)
	half := drivertest.NewUUID()
	s := must(r.engine.State(t.Context(), engine.ContainerID(whole.UUID)))(t)
	check(t, r.engine.Create(t.Context(), engine.CreateRequest{ID: engine.ContainerID(half), Image: bootable + ":aa", Labels: s.Labels}))
	check(t, r.driver.Plug(t.Context(), half, port(t)))
	r.again(t, 0)
	if found := must(r.driver.Recover(t.Context()))(t); !slices.Equal(found, []driver.InstanceUUID{whole.UUID}) {
		t.Errorf("found %v", found)
	}
	asBefore(t, r, before)
	check(t, r.driver.Destroy(t.Context(), whole.UUID))
}

// TestPlugFollowsNeutron: a port that is gone goes, a new one comes.
func TestPlugFollowsNeutron(t *testing.T) {
	r := newRig(t)
	req := request()
	one, two := port(t), port(t)
	req.Network = drivertest.Ready(one)
	check(t, r.driver.Spawn(t.Context(), req))
	for i, vifs := range []objects.NetworkInfo{append(slices.Clone(one), func() objects.VIF { v := two[0]; v.Network.Subnets = nil; return v }()), two, nil, one} {
		check(t, r.driver.Plug(t.Context(), req.UUID, vifs))
		stats := must(r.plugger.Stats(t.Context(), string(req.UUID)))(t)
		if len(stats) != len(vifs) {
			t.Errorf("step %d: %d interfaces, want %d: %v", i, len(stats), len(vifs), fmt.Sprint(stats))
		}
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// TestOutOfMemoryIsTheReason: a tenant reads why the guest is gone.
func TestOutOfMemoryIsTheReason(t *testing.T) {
	r := newRig(t)
	req := request()
	req.Flavor.MemoryMB = 16
	req.Image.Properties = map[string]string{"os_command_line": "dd if=/dev/zero of=/dev/null bs=64M count=1"}
	check(t, r.driver.Spawn(t.Context(), req))
	if ev := <-r.driver.Events(); ev.UUID != req.UUID || ev.Reason != "killed: out of memory" {
		t.Errorf("event %+v", ev)
	}
	if info := must(r.driver.Info(t.Context(), req.UUID))(t); info.State != driver.PowerCrashed || info.Reason != "killed: out of memory" {
		t.Errorf("%+v", info)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// TestTheFlavorBoundsTheDisk: what the flavor says is asked of the engine, and
// a host without limits for disks boots the instance all the same.
func TestTheFlavorBoundsTheDisk(t *testing.T) {
	r := newRig(t)
	req := request()
	check(t, r.driver.Spawn(t.Context(), req))
	s := must(r.engine.State(t.Context(), engine.ContainerID(req.UUID)))(t)
	img := must(r.engine.Image(t.Context(), s.Image))(t)
	if want := int64(1<<30) - img.SizeBytes; s.Disk.Bytes != want || s.Disk.Inodes == 0 || s.DiskEnforced.Bytes != 0 {
		t.Errorf("asked for %+v, enforced %+v, want %d bytes", s.Disk, s.DiskEnforced, want)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// TestExtraSpecsLimitTheGuest compares quotas of a flavor with what the kernel has
// been told, before and after resizes.
func TestExtraSpecsLimitTheGuest(t *testing.T) {
	r := newRig(t)
	req := request()
	plain := req.Flavor
	req.Flavor.ExtraSpecs = map[string]string{"quota:disk_write_bytes_sec": "1048576", "quota:cpu_shares": "77", "gantry:pids": "99", "quota:vif_outbound_average": "1000"}
	req.Network = drivertest.Ready(port(t))
	check(t, r.driver.Spawn(t.Context(), req))
	resize := func(from, to driver.Flavor) {
		t.Helper()
		_, err := r.driver.MigrateDiskAndPowerOff(t.Context(), driver.MigrateRequest{UUID: req.UUID, Old: from, New: to})
		check(t, err)
		done := driver.FinishMigrationRequest{SpawnRequest: req, Old: from, PowerOn: true}
		done.Flavor = to
		check(t, r.driver.FinishMigration(t.Context(), done))
	}
	throttled := func(want bool) {
		t.Helper()
		s := must(r.engine.State(t.Context(), engine.ContainerID(req.UUID)))(t)
		if has := s.Limits.BlockIO != nil; has != want {
			t.Errorf("limits of the disk: %+v, want some: %t", s.Limits.BlockIO, want)
		}
		if has := strings.Contains(told(t, s.Process.Pid, "blkio", "blkio.throttle.write_bps_device", "io.max"), "1048576"); has != want {
			t.Errorf("the kernel was told of a limit of the disk: %t, want %t", has, want)
		}
		if has := r.shaped(t); has != want {
			t.Errorf("a limit of what the guest sends: %t, want %t", has, want)
		}
	}
	s := must(r.engine.State(t.Context(), engine.ContainerID(req.UUID)))(t)
	if got := strings.TrimSpace(told(t, s.Process.Pid, "pids", "pids.max", "pids.max")); got != "99" {
		t.Errorf("processes: %s", got)
	}
	throttled(true)
	resize(req.Flavor, plain)
	throttled(false)
	resize(plain, req.Flavor)
	throttled(true)
	_, err := r.driver.MigrateDiskAndPowerOff(t.Context(), driver.MigrateRequest{
		UUID: req.UUID, Old: req.Flavor, New: driver.Flavor{Name: "bad", ExtraSpecs: map[string]string{"quota:cpu_shares": "none"}, RootGB: plain.RootGB},
	})
	if !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("resize to a bad flavor: %v", err)
	}
	throttled(true)
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	if r.shaped(t) {
		t.Error("the device of a limit is left")
	}
}

// shaped reports whether something of what guests send is limited: it goes
// through a device "gtl…" then.
func (r *rig) shaped(t *testing.T) bool {
	t.Helper()
	var all []net.Interface
	check(t, netns.Do(r.links, func() (err error) {
		all, err = net.Interfaces()
		return err
	}))
	return slices.ContainsFunc(all, func(i net.Interface) bool { return strings.HasPrefix(i.Name, "gtl") })
}

// told is what a process's control group has in a file, by its name on v1 in that
// controller or on v2; nothing where the file is not.
func told(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	raw := must(os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)))(t)
	for line := range strings.Lines(string(raw)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for _, file := range []string{filepath.Join("/sys/fs/cgroup", controller, fields[2], v1), filepath.Join("/sys/fs/cgroup", fields[2], v2)} {
			if fields[1] != controller && fields[1] != "" {
				continue
			}
			if text, err := os.ReadFile(file); err == nil {
				return string(text)
			}
		}
	}
	return ""
}
