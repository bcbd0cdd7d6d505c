//go:build criu

package local_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/drivertest"
	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/checkpoint"
	"github.com/gantry-project/gantry/engine/process"
)

// TestCriuSuspend: a guest's memory goes to the disk and nothing of it runs;
// another life of the service brings it back, with its network. A stop drops what
// was kept.
func TestCriuSuspend(t *testing.T) {
	r := newRig(t, func(o *process.Options) { o.Restore = checkpoint.Restore })
	r.end()
	r.suspend = local.SuspendCheckpoint
	r.open(t)
	req, vifs := request(), port(t)
	req.Network = drivertest.Ready(vifs)
	req.Image.Properties = map[string]string{"os_command_line": `/bin/busybox sh -c "n=0; trap 'n=$((n+1)); echo counted $n' USR1; echo ready; while :; do /bin/busybox sleep 1000 & wait $!; done"`}
	check(t, r.driver.Spawn(t.Context(), req))
	id := engine.ContainerID(req.UUID)
	r.console(t, req.UUID, "ready")
	count := func(want string) {
		t.Helper()
		check(t, r.engine.Kill(t.Context(), id, 10))
		r.console(t, req.UUID, want)
	}
	count("counted 1")
	check(t, r.driver.Suspend(t.Context(), req.UUID))
	memory := filepath.Join(r.host.Root, "suspended", string(req.UUID))
	if st, err := os.Stat(memory); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("memory on the disk: %v, %v", st, err)
	}
	for _, left := range r.residue(t) {
		if strings.HasPrefix(left, "process ") || strings.HasPrefix(left, "group ") {
			t.Errorf("still there: %s", left)
		}
	}
	r.end()
	r.open(t)
	must(r.driver.Recover(t.Context()))(t)
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerSuspended})
	check(t, r.driver.Resume(t.Context(), driver.PowerOnRequest{UUID: req.UUID, VIFs: vifs}))
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerRunning})
	count("counted 2")
	if out, _ := r.run(t, req.UUID, "/bin/busybox", "ip", "addr"); !strings.Contains(out, "10.0.0.5/24") {
		t.Errorf("network: %s", out)
	}
	if _, err := os.Stat(memory); err == nil {
		t.Error("the memory is still on the disk")
	}
	check(t, r.driver.Suspend(t.Context(), req.UUID))
	check(t, r.driver.PowerOff(t.Context(), req.UUID, driver.PowerOffOptions{}))
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerShutdown, Reason: "stopped"})
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}
