package local

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// cpuPeriod is the default of cpu time: a quota holds for each 100 ms.
const cpuPeriod = 100_000

// limitsFor turns a flavor into limits; every one is set, whatever the flavor
// says. Extra specs tune them (Nova's quota:*, our gantry:pids): one that is no
// number or out of its range is errdefs.ErrInvalid, limits of a disk that cannot have
// them are errdefs.ErrUnsupported. What no instance gets here is refused by possible.
func (d *Driver) limitsFor(f driver.Flavor) (cgroup.Limits, error) {
	vcpus := max(f.VCPUs, 1)
	l := cgroup.Limits{
		MemoryBytes: max(f.MemoryMB, 1) * mib,
		SwapBytes:   -1,
		CPUPeriod:   cpuPeriod,
		CPUShares:   min(vcpus*1024, 262144),
		Pids:        pidLimit(vcpus, d.opts.PidsPerVCPU),
		Devices:     engine.DefaultDevices(),
	}
	spec := specs{flavor: f}
	spec.number("quota:cpu_shares", 2, 262144, &l.CPUShares)
	spec.number("quota:cpu_period", 1000, 1_000_000, &l.CPUPeriod)
	spec.number("gantry:pids", 64, 4<<20, &l.Pids)
	// as libvirt has it: of each vCPU, and negative is all of it
	quota := l.CPUPeriod
	spec.number("quota:cpu_quota", math.MinInt64, math.MaxInt64, &quota)
	if quota < 0 {
		quota = l.CPUPeriod
	} else if quota < 1000 {
		spec.refuse("quota:cpu_quota", "a number of microseconds, at least 1000, or negative")
	}
	l.CPUQuota = vcpus * min(quota, l.CPUPeriod)
	l.BlockIO = spec.blockIO(d.opts.StorePath)
	if spec.err == nil {
		l.CPUSet, spec.err = d.processorsFor(f)
	}
	return l, spec.err
}

// pidLimit is how many processes an instance may have: never unlimited.
func pidLimit(vcpus, perVCPU int64) int64 { return max(vcpus*perVCPU, 512) }

// specs reads a flavor's extra specs and keeps the first that is wrong.
type specs struct {
	flavor driver.Flavor
	err    error
}

func (s *specs) refuse(key, want string) {
	if s.err == nil {
		s.err = errdefs.WithPublic(fmt.Errorf("flavor %s: %s %.64q: %w", s.flavor.Name, key, s.flavor.ExtraSpecs[key], errdefs.ErrInvalid),
			"The flavor's "+key+" must be "+want+".")
	}
}

// number puts a number of the flavor into to; without one it stays as it is.
func (s *specs) number(key string, least, most int64, to *int64) {
	text, ok := s.flavor.ExtraSpecs[key]
	if !ok {
		return
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < least || n > most {
		s.refuse(key, fmt.Sprintf("a number within %d and %d", least, most))
		return
	}
	*to = n
}

// blockIO limits the device of the store; nil where the flavor limits nothing.
func (s *specs) blockIO(store string) *cgroup.BlockIO {
	rates := map[string]*int64{}
	limited := false
	for _, key := range []string{"read_bytes", "write_bytes", "read_iops", "write_iops"} {
		rates[key] = new(int64)
		s.number("quota:disk_"+key+"_sec", 0, math.MaxUint32, rates[key])
		limited = limited || *rates[key] > 0
	}
	if !limited || s.err != nil {
		return nil
	}
	major, minor, err := deviceOf(store)
	if err != nil {
		s.err = errdefs.WithPublic(fmt.Errorf("flavor %s: %w", s.flavor.Name, err), "The flavor limits the disk, which this host cannot.")
		return nil
	}
	throttle := func(key string) []cgroup.ThrottleDevice {
		if *rates[key] == 0 {
			return nil
		}
		return []cgroup.ThrottleDevice{{Major: major, Minor: minor, Rate: uint64(*rates[key])}}
	}
	return &cgroup.BlockIO{
		ReadBPS: throttle("read_bytes"), WriteBPS: throttle("write_bytes"), ReadIOPS: throttle("read_iops"), WriteIOPS: throttle("write_iops"),
	}
}

// deviceOf is the disk that holds a path: the whole one, since the kernel limits no
// partitions. errdefs.ErrUnsupported for a file system that is on no single disk, as
// btrfs says of itself.
func deviceOf(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fmt.Errorf("device of %s: %w", path, err)
	}
	dev := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	real, err := filepath.EvalSymlinks(dev)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, fmt.Errorf("device of %s: %d:%d is no block device: %w", path, unix.Major(st.Dev), unix.Minor(st.Dev), errdefs.ErrUnsupported)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("device of %s: %w", path, err)
	}
	if _, err := os.Stat(filepath.Join(real, "partition")); err == nil {
		real = filepath.Dir(real)
	}
	raw, err := os.ReadFile(filepath.Join(real, "dev"))
	if err != nil {
		return 0, 0, fmt.Errorf("device of %s: %w", path, err)
	}
	if _, err := fmt.Sscanf(string(raw), "%d:%d", &major, &minor); err != nil {
		return 0, 0, fmt.Errorf("device of %s: %q: %w", path, raw, err)
	}
	return major, minor, nil
}

// possible refuses a flavor that asks for what no instance gets here: it would
// boot without it, and nobody would know.
func possible(f driver.Flavor) error {
	var what string
	switch {
	case f.EphemeralGB > 0:
		what = "an ephemeral disk"
	case f.SwapMB > 0:
		what = "a swap disk"
	}
	for key, value := range f.ExtraSpecs {
		switch {
		case key == "hw:mem_page_size" && value != "small" && value != "any":
			what = "pages of a certain size"
		case key == "hw:cpu_policy" && value == "mixed":
			what = "processors of its own beside shared ones"
		case key == "hw:emulator_threads_policy" && value == "isolate":
			what = "a processor for its emulator"
		case key == "hw:cpu_realtime" && isTrue(value):
			what = "processors in real time"
		case key == "hw:numa_nodes" && strings.TrimSpace(value) != "1":
			what = "several memory nodes"
		case strings.HasPrefix(key, "quota:vif_") && !isTraffic(key):
			what = "limits of network interfaces of another kind"
		case strings.HasPrefix(key, "quota:disk_total_"):
			what = "a limit of reads and writes together"
		case key == "hw:mem_encryption" && isTrue(value):
			what = "encrypted memory"
		case strings.HasPrefix(key, "hw:tpm_"):
			what = "a TPM"
		}
	}
	if what == "" {
		return nil
	}
	return errdefs.WithPublic(fmt.Errorf("flavor %s with %s: %w", f.Name, what, errdefs.ErrInvalid),
		"The flavor has "+what+", which container hosts do not support.")
}

// isTrue reads a boolean as oslo.utils' strutils.bool_from_string does.
func isTrue(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "t", "true", "on", "y", "yes":
		return true
	}
	return false
}
