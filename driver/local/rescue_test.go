package local_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/drivertest"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// rescuer is another image of the rig's: the same system as another image.
const rescuer = "c0ffee00-0000-4000-8000-000000000009"

func (r *rig) rescueOf(req driver.SpawnRequest, vifs objects.NetworkInfo) driver.RescueRequest {
	r.images.data[rescuer] = r.images.data[bootable]
	req.Image = imageOf(rescuer)
	req.Image.ContainerFormat = "bare"
	req.Network = drivertest.Ready(vifs)
	req.AdminPassword = "let me in"
	return driver.RescueRequest{SpawnRequest: req}
}

// The rescue system has the instance's name, address, key and password, and the
// instance's disk below it, with the owners as the instance sees them. What it
// mends there the instance finds.
func TestRescue(t *testing.T) {
	r := newRig(t)
	r.end()
	r.inject = true
	r.open(t)
	req, vifs := request(), port(t)
	req.Network = drivertest.Ready(vifs)
	check(t, r.driver.Spawn(t.Context(), req))
	before := r.residue(t)
	inside := func(command string) string {
		t.Helper()
		out, code := r.run(t, req.UUID, "/bin/busybox", "sh", "-c", command)
		if code != 0 {
			t.Fatalf("%s: status %d: %s", command, code, out)
		}
		return out
	}
	inside("echo broken > /etc/state; busybox chown 33:44 /etc/state; echo of the instance > /mark")
	check(t, r.driver.Rescue(t.Context(), r.rescueOf(req, vifs)))
	if out := inside("busybox hostname; busybox ip addr; cat /root/.ssh/authorized_keys"); !strings.Contains(out, "web\n") ||
		!strings.Contains(out, "10.0.0.5/24") || !strings.Contains(out, "ssh-ed25519 AAAA key") {
		t.Errorf("of the instance: %s", out)
	}
	if out := inside("cat /mnt/rescue/mark; busybox stat -c %u:%g /mnt/rescue/etc/state; ls /mark 2>&1 || :"); !strings.HasPrefix(out, "of the instance\n33:44\n") || !strings.Contains(out, "No such file") {
		t.Errorf("below: %s", out)
	}
	_, shadow := r.file(t, req.UUID, "/etc/shadow")
	if digest, err := shacrypt.Decode(strings.Split(shadow, ":")[1]); err != nil || !digest.Match("let me in") {
		t.Errorf("password: %q, %v", shadow, err)
	}
	inside("echo mended > /mnt/rescue/etc/state; echo of the rescue > /mark2")
	// another life of the service, and another start
	r.end()
	r.open(t)
	must(r.driver.Recover(t.Context()))(t)
	check(t, r.driver.Reboot(t.Context(), driver.RebootRequest{UUID: req.UUID, Type: driver.RebootHard, VIFs: vifs}))
	if out := inside("cat /mark2 /mnt/rescue/etc/state"); out != "of the rescue\nmended\n" {
		t.Errorf("after a reboot: %s", out)
	}
	if all := must(r.driver.Instances(t.Context()))(t); len(all) != 1 {
		t.Errorf("instances %v", all)
	}
	check(t, r.driver.Unrescue(t.Context(), driver.UnrescueRequest{UUID: req.UUID, VIFs: vifs, PowerOn: true}))
	if out := inside("cat /mark /etc/state; busybox stat -c %u:%g /etc/state; ls /mark2 2>&1 || :"); !strings.HasPrefix(out, "of the instance\nmended\n33:44\n") || !strings.Contains(out, "No such file") {
		t.Errorf("the instance: %s", out)
	}
	if now := r.residue(t); len(now) != len(before) {
		t.Errorf("left:\n  before %q\n  after  %q", before, now)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// Whatever fails on the way leaves the instance with its own system, running if
// it ran.
func TestRescueEachStepCanFail(t *testing.T) {
	r := newRig(t)
	req := request()
	check(t, r.driver.Spawn(t.Context(), req))
	check(t, r.driver.Rescue(t.Context(), r.rescueOf(req, nil))) // brings the image
	check(t, r.driver.Unrescue(t.Context(), driver.UnrescueRequest{UUID: req.UUID, PowerOn: true}))
	before := r.residue(t)
	for _, running := range []bool{true, false} {
		if !running {
			check(t, r.driver.PowerOff(t.Context(), req.UUID, driver.PowerOffOptions{}))
			before = r.residue(t)
		}
		for _, point := range []string{
			"rescue.stopped", "engine.create.record", "rescue.disk", "engine.update.record", "rescue.labelled", "engine.start.begin:1",
			"engine.start.record:1", "rescue.started",
		} {
			check(t, failpoint.Set(point, "error"))
			err := r.driver.Rescue(t.Context(), r.rescueOf(req, nil))
			check(t, failpoint.Set(strings.TrimSuffix(point, ":1"), ""))
			if !errors.Is(err, failpoint.ErrInjected) {
				t.Errorf("%s: %v", point, err)
			}
			info := must(r.driver.Info(t.Context(), req.UUID))(t)
			if info.Rescued || (info.State == driver.PowerRunning) != running {
				t.Errorf("%s: %+v", point, info)
			}
			if now := r.residue(t); !slices.Equal(now, before) {
				t.Errorf("%s: left\n  before %q\n  after  %q", point, before, now)
			}
		}
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// What a service that was killed has left is finished or goes: a disk that no
// instance is rescued by is removed, one that has been named is used.
func TestRescueIsRecovered(t *testing.T) {
	r := newRig(t)
	req := request()
	check(t, r.driver.Spawn(t.Context(), req))
	before := r.residue(t)
	again := func() {
		r.end()
		r.open(t)
		must(r.driver.Recover(t.Context()))(t)
	}
	disk := engine.ContainerID(req.UUID) + "-rescue"
	// killed with the disk made: before a rescue, or behind its end
	check(t, r.engine.Create(t.Context(), engine.CreateRequest{
		ID: disk, Image: bootable + ":aa", Labels: map[string]string{"gantry.rescue": string(req.UUID)},
	}))
	again()
	if now := r.residue(t); !slices.Equal(now, before) {
		t.Errorf("left\n  before %q\n  after  %q", before, now)
	}
	// killed with the instance told and nothing started
	check(t, r.driver.Rescue(t.Context(), r.rescueOf(req, nil)))
	check(t, r.driver.PowerOff(t.Context(), req.UUID, driver.PowerOffOptions{}))
	again()
	if info := must(r.driver.Info(t.Context(), req.UUID))(t); !info.Rescued || info.State != driver.PowerShutdown {
		t.Errorf("%+v", info)
	}
	// killed in the middle of its end
	for _, point := range []string{"unrescue.labelled", "unrescue.removed"} {
		check(t, failpoint.Set(point, "error"))
		err := r.driver.Unrescue(t.Context(), driver.UnrescueRequest{UUID: req.UUID, PowerOn: true})
		check(t, failpoint.Set(point, ""))
		if !errors.Is(err, failpoint.ErrInjected) {
			t.Errorf("%s: %v", point, err)
		}
		again()
	}
	check(t, r.driver.Unrescue(t.Context(), driver.UnrescueRequest{UUID: req.UUID, PowerOn: true}))
	if now := r.residue(t); !slices.Equal(now, before) {
		t.Errorf("left\n  before %q\n  after  %q", before, now)
	}
	if err := r.engine.Start(t.Context(), engine.ContainerID(req.UUID), engine.StartRequest{Over: disk, OwnAt: "/own"}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("over nothing, running: %v", err)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}
