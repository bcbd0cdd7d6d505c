package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// A config drive is a read-only tree where cloud-init looks for one that is no
// device (DataSourceConfigDrive; ds-identify, check_configdrive_v2). No device can be:
// the kernel lets nobody in a user namespace mount an ISO 9660 or VFAT. The name by
// which a device would be found leads to the tree.
const (
	drivePlace = "/config-drive"
	driveLink  = "disk/by-label/config-2"
	// maxDrive is what Nova's drives hold (nova/virt/configdrive.py).
	maxDrive = 64 * mib
)

// driveFile keeps an instance's drive for its next starts. No disk of the
// instance has it, so no snapshot does either.
func (d *Driver) driveFile(uuid driver.InstanceUUID) string {
	return filepath.Join(d.drives(), string(uuid))
}

func (d *Driver) drives() string { return filepath.Join(d.opts.StorePath, "config-drives") }

// keepDrive writes the drive down. One that does not fit is errdefs.ErrInvalid.
func (d *Driver) keepDrive(uuid driver.InstanceUUID, g guest, files []driver.File) error {
	if size, room := driveSize(files), min(maxDrive, g.MemoryMB*mib/4); size > room {
		return errdefs.WithPublic(fmt.Errorf("config drive of %d bytes, room for %d: %w", size, room, errdefs.ErrInvalid),
			fmt.Sprintf("The config drive takes %d KiB; the flavor has room for %d.", size>>10, room>>10))
	}
	raw, err := json.Marshal(files)
	if err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	if err := os.MkdirAll(d.drives(), 0o700); err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	if err := atomicfile.Write(d.driveFile(uuid), raw, 0o600); err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	return nil
}

func (d *Driver) dropDrive(uuid driver.InstanceUUID) error {
	if err := os.Remove(d.driveFile(uuid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove config drive: %w", err)
	}
	return nil
}

// mountDrive adds the drive to a start.
func (d *Driver) mountDrive(req *engine.StartRequest, uuid driver.InstanceUUID) error {
	raw, err := os.ReadFile(d.driveFile(uuid))
	if err != nil {
		return fmt.Errorf("config drive of %s: %w", uuid, err)
	}
	var files []driver.File
	if err := json.Unmarshal(raw, &files); err != nil {
		return fmt.Errorf("config drive of %s: %w: %w", uuid, err, errdefs.ErrCorrupt)
	}
	m := process.Mount{Destination: drivePlace, Type: "tmpfs", Options: []string{
		"ro", "nosuid", "nodev", "noexec", "mode=700", fmt.Sprintf("size=%d", driveSize(files)),
	}}
	for _, f := range files {
		m.Files = append(m.Files, process.File{Path: f.Path, Data: f.Content, Mode: 0o400})
	}
	req.Mounts = append(req.Mounts, m)
	req.Links = map[string]string{driveLink: drivePlace}
	return nil
}

// driveSize is what the files take: whole pages, and one for each directory.
func driveSize(files []driver.File) int64 {
	const page = 4096
	dirs := map[string]bool{}
	var pages int64
	for _, f := range files {
		pages += (int64(len(f.Content)) + page - 1) / page
		for dir := filepath.Dir(f.Path); dir != "." && dir != "/" && !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	return (pages + int64(len(dirs)) + 1) * page
}

// sweepDrives removes those of instances that are not here.
func (d *Driver) sweepDrives(known map[string]bool) error {
	entries, err := os.ReadDir(d.drives())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list config drives: %w", err)
	}
	for _, e := range entries {
		if !known[e.Name()] {
			if err := os.Remove(filepath.Join(d.drives(), e.Name())); err != nil {
				return fmt.Errorf("remove config drive: %w", err)
			}
		}
	}
	return nil
}
