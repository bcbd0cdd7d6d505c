package local

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// onDisk is a driver whose store is on the file system of the tests.
func onDisk(t *testing.T, pidsPerVCPU int64) *Driver {
	t.Helper()
	return &Driver{opts: Options{StorePath: t.TempDir(), PidsPerVCPU: pidsPerVCPU}}
}

func TestLimitsFor(t *testing.T) {
	base := cgroup.Limits{MemoryBytes: 512 << 20, SwapBytes: -1, CPUPeriod: 100_000, CPUQuota: 200_000, CPUShares: 2048, Pids: 2000, Devices: engine.DefaultDevices()}
	d := onDisk(t, 1000)
	for _, c := range []struct {
		specs string
		edit  func(*cgroup.Limits)
	}{
		{"", func(*cgroup.Limits) {}},
		{"quota:cpu_shares=10", func(l *cgroup.Limits) { l.CPUShares = 10 }},
		{"quota:cpu_quota=25000", func(l *cgroup.Limits) { l.CPUQuota = 50_000 }},
		{"quota:cpu_quota=5000 quota:cpu_period=10000", func(l *cgroup.Limits) { l.CPUQuota, l.CPUPeriod = 10_000, 10_000 }},
		{"quota:cpu_quota=-1 quota:cpu_period=10000", func(l *cgroup.Limits) { l.CPUQuota, l.CPUPeriod = 20_000, 10_000 }},
		{"quota:cpu_quota=900000", func(*cgroup.Limits) {}}, // more than there are vCPUs
		{"gantry:pids=77", func(l *cgroup.Limits) { l.Pids = 77 }},
		{"other=1 quota:disk_read_bytes_sec=0", func(*cgroup.Limits) {}},
	} {
		want := base
		c.edit(&want)
		got, err := d.limitsFor(flavorWith(c.specs))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", c.specs, err, diff)
		}
	}
	// nothing is unlimited, whatever the flavor says
	got, err := onDisk(t, 0).limitsFor(driver.Flavor{})
	if err != nil || got.MemoryBytes <= 0 || got.CPUQuota <= 0 || got.CPUShares <= 0 || got.Pids <= 0 || got.SwapBytes != -1 || got.Devices == nil {
		t.Errorf("empty flavor: %+v, %v", got, err)
	}
	if got, err := onDisk(t, 1).limitsFor(driver.Flavor{MemoryMB: 1, VCPUs: 1024}); err != nil || got.CPUShares != 262144 || got.Pids != 1024 {
		t.Errorf("large: %+v, %v", got, err)
	}
}

// flavorWith has two vCPUs and extra specs written KEY=VALUE, with blanks between.
func flavorWith(specs string) driver.Flavor {
	f := driver.Flavor{Name: "f", MemoryMB: 512, VCPUs: 2, ExtraSpecs: map[string]string{}}
	for _, s := range strings.Fields(specs) {
		key, value, _ := strings.Cut(s, "=")
		f.ExtraSpecs[key] = value
	}
	return f
}

func TestLimitsOfTheDisk(t *testing.T) {
	d := onDisk(t, 1000)
	major, minor, err := deviceOf(d.opts.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	one := func(rate uint64) []cgroup.ThrottleDevice {
		return []cgroup.ThrottleDevice{{Major: major, Minor: minor, Rate: rate}}
	}
	got, err := d.limitsFor(flavorWith("quota:disk_read_bytes_sec=1000 quota:disk_write_bytes_sec=2000 quota:disk_read_iops_sec=30"))
	if diff := cmp.Diff(&cgroup.BlockIO{ReadBPS: one(1000), WriteBPS: one(2000), ReadIOPS: one(30)}, got.BlockIO); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	d.opts.StorePath = "/proc" // on no device
	if _, err := d.limitsFor(flavorWith("quota:disk_write_iops_sec=1")); !errors.Is(err, errdefs.ErrUnsupported) || errdefs.PublicText(err, "") == "" {
		t.Errorf("a store on no disk: %v", err)
	}
}

func TestFlavorsThatAreRefused(t *testing.T) {
	d := onDisk(t, 1000)
	for _, c := range []struct{ specs, says string }{
		{"quota:cpu_shares=1", "quota:cpu_shares must be a number within 2 and 262144"},
		{"quota:cpu_shares=many", "quota:cpu_shares"},
		{"quota:cpu_period=999", "quota:cpu_period"},
		{"quota:cpu_quota=999", "quota:cpu_quota must be a number of microseconds"},
		{"quota:disk_read_bytes_sec=-1", "quota:disk_read_bytes_sec"},
		{"gantry:pids=1", "gantry:pids"},
		{"hw:mem_page_size=2MB", "pages of a certain size"},
		{"hw:mem_page_size=large", "pages of a certain size"},
		{"hw:cpu_policy=dedicated", "processors of its own, of which the host has none"},
		{"hw:cpu_policy=mixed", "processors of its own beside shared ones"},
		{"hw:emulator_threads_policy=isolate", "a processor for its emulator"},
		{"hw:cpu_realtime=yes", "processors in real time"},
		{"hw:numa_nodes=2", "several memory nodes"},
		{"quota:vif_limit=100", "limits of network interfaces of another kind"},
		{"quota:disk_total_iops_sec=100", "reads and writes together"},
		{"hw:mem_encryption=True", "encrypted memory"},
		{"hw:tpm_version=2.0", "a TPM"},
	} {
		f := flavorWith(c.specs)
		_, limits := d.limitsFor(f)
		err := errors.Join(possible(f), limits)
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.PublicText(err, ""), c.says) {
			t.Errorf("%s: %v, says %q", c.specs, err, errdefs.PublicText(err, ""))
		}
	}
	for _, specs := range []string{"hw:mem_page_size=small", "hw:cpu_policy=shared", "hw:mem_encryption=no", "trait:CUSTOM_GANTRY=required"} {
		if err := possible(flavorWith(specs)); err != nil {
			t.Errorf("%s: %v", specs, err)
		}
	}
}
