//go:build debian

package debian

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/disktest"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
	"github.com/gantry-project/gantry/functional/cloudtest"
)

// TestTrees: of each suite, table, file system and format, the reader shows what
// the kernel shows.
func TestTrees(t *testing.T) {
	for _, suite := range suites(t) {
		for _, kind := range []string{"ext4", "xfs", "btrfs"} {
			for _, table := range []string{"gpt", "mbr"} {
				t.Run(suite+" "+kind+" "+table, func(t *testing.T) {
					raw := image(t, suite, table, kind)
					for format, file := range map[string]string{"raw": raw, "qcow2": disktest.QCOW2(t, raw)} {
						t.Run(format, func(t *testing.T) { // once read, what was allocated and never written is no hole to the kernel
							compare(t, file, format, mounted(t, raw, kind))
						})
					}
				})
			}
		}
	}
}

// compare compares a root, as it is read, with what the kernel shows at dir.
func compare(t *testing.T, name, format, dir string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(t.Context(), f, st.Size(), disk.Options{Format: format, Arch: runtime.GOARCH})
	if err != nil {
		t.Fatal(err)
	}
	filesystemtest.Compare(t, d.Root, dir)
}

// TestMachines: an image of each suite runs as a system instance, and a snapshot
// of that boots as a machine, by the boot loader of the image.
func TestMachines(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"), "--snapshot-format", "qcow2")
	c := p.As(t, "demo")
	p.OpenStack(t, "admin", "flavor", "create", "--ram", "768", "--disk", "10", "--vcpus", "2", "debian")
	for _, suite := range suites(t) {
		t.Run(suite, func(t *testing.T) {
			raw := image(t, suite, "mbr", "ext4")
			p.OpenStack(t, "demo", "image", "create", "--disk-format", "qcow2", "--container-format", "bare", "--file", disktest.QCOW2(t, raw), suite)
			id := p.OpenStack(t, "demo", "server", "create", "--image", suite, "--flavor", "debian", "--network", "private", "--wait", "-f", "value", "-c", "id", suite)
			cloudtest.Eventually(t, "console of the instance", func() (bool, error) {
				text, err := servers.ShowConsoleOutput(t.Context(), c.Compute, id, servers.ShowConsoleOutputOpts{}).Extract()
				return strings.Contains(text, "told: changed in an instance of "+suite), err
			})
			p.OpenStack(t, "demo", "server", "image", "create", "--wait", "--name", suite+"-snapshot", suite)
			p.OpenStack(t, "demo", "server", "delete", "--wait", suite)
			file := filepath.Join(t.TempDir(), "snapshot")
			p.OpenStack(t, "demo", "image", "save", "--file", file, suite+"-snapshot")
			disktest.Run(t, "qemu-img", "check", "-f", "qcow2", file)
			says := machine(t, file)
			want := "told by a machine: changed in an instance of " + suite + ", root is ext4"
			if !strings.Contains(says, want) {
				t.Errorf("the machine does not say %q:\n%s", want, says[max(0, len(says)-6000):])
			}
		})
	}
}
