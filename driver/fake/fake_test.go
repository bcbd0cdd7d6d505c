package fake_test

import (
	"fmt"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/drivertest"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func request(*testing.T) driver.SpawnRequest {
	return driver.SpawnRequest{
		Name: "instance-00000001", Hostname: "web",
		Flavor: driver.Flavor{Name: "c1.tiny", MemoryMB: 64, VCPUs: 1, RootGB: 1},
		Image:  driver.Image{ID: "img", DiskFormat: "raw", ContainerFormat: "bare"},
	}
}

func TestConformance(t *testing.T) {
	ports := 0
	drivertest.Run(t, drivertest.Harness{
		New:     func(*testing.T) driver.ComputeDriver { return fake.New() },
		Request: request,
		Network: func(*testing.T) objects.NetworkInfo {
			ports++
			return objects.NetworkInfo{{ID: fmt.Sprintf("port-%d", ports), Address: fmt.Sprintf("fa:16:3e:00:00:%02x", ports)}}
		},
		Residue: func(_ *testing.T, d driver.ComputeDriver) []string { return d.(*fake.Driver).Host().Residue() },
		Unbootable: func(t *testing.T) driver.SpawnRequest {
			r := request(t)
			r.Image.DiskFormat = fake.BadFormat
			return r
		},
		Exit: func(_ *testing.T, d driver.ComputeDriver, uuid driver.InstanceUUID) {
			d.(*fake.Driver).Exit(uuid, driver.PowerCrashed, "exited with status 1")
		},
		Reboot: func(_ *testing.T, d driver.ComputeDriver, uuid driver.InstanceUUID) {
			d.(*fake.Driver).Restart(uuid)
		},
		Process: func(_ *testing.T, d driver.ComputeDriver, uuid driver.InstanceUUID) string {
			return fmt.Sprint(d.(*fake.Driver).Boots(uuid))
		},
		Restart: func(_ *testing.T, d driver.ComputeDriver) driver.ComputeDriver {
			return fake.On(d.(*fake.Driver).Host())
		},
	})
}

// Every step of a Spawn can fail; the host is then as before.
func TestFailEachStep(t *testing.T) {
	for _, step := range []fake.Step{fake.StepImage, fake.StepDisk, fake.StepNetwork, fake.StepPlug, fake.StepStart} {
		t.Run(string(step), func(t *testing.T) {
			d := fake.New()
			req := request(t)
			req.UUID, req.Events = drivertest.NewUUID(), &drivertest.Events{}
			req.Network = drivertest.Ready(objects.NetworkInfo{{ID: "port-1"}})
			d.FailNext(step, errdefs.ErrUnavailable)
			if err := d.Spawn(t.Context(), req); err == nil {
				t.Fatal("Spawn succeeded")
			}
			if left := d.Host().Residue(); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
			if err := d.Spawn(t.Context(), req); err != nil {
				t.Errorf("second Spawn: %v", err)
			}
		})
	}
}

func TestRecoverRemovesHalfMade(t *testing.T) {
	h := fake.NewHost()
	h.Abandon("aaaa")
	found, err := fake.On(h).Recover(t.Context())
	if err != nil || len(found) != 0 || len(h.Residue()) != 0 {
		t.Errorf("Recover = %v, %v; residue %q", found, err, h.Residue())
	}
}
