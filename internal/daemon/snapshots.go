package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/engine/snapshot/probe"
	"github.com/gantry-project/gantry/engine/store"
)

// unboundedCosts and unboundedRemedy are said where nothing bounds disks.
const (
	unboundedCosts  = "an instance can fill the disk of the host: only the size of its image is compared with its flavor"
	unboundedRemedy = "mount the store's file system with prjquota (ext4 needs tune2fs -O project,quota first), or put it on btrfs, " +
		"or choose disk_limit=loop, which costs each instance a mkfs and a loop device"
)

// openSnapshots opens the store of snapshots below root, the engine's, with
// what the file system and the kernel can do, so that a host that cannot do
// what every instance needs says so at the start and not to a tenant. backend
// and limit are the words of the options snapshotter and disk_limit.
func openSnapshots(ctx context.Context, root, backend, limit string) (_ snapshot.Snapshotter, c probe.Choice, err error) {
	dir, err := os.MkdirTemp(root, ".probe-")
	if err != nil {
		return nil, c, fmt.Errorf("probe the host: %w", err)
	}
	ids := []process.IDMap{{ContainerID: 0, HostID: store.FirstID, Size: store.IDBlock}}
	user, _, err := process.CreateNamespaces(ctx, dir, ids, ids)
	var s snapshot.Snapshotter
	if err == nil {
		s, c, err = probe.Open(ctx, filepath.Join(root, "snapshots"), probe.Options{
			Backend: backend, Limit: limit, IDs: snapshot.IDs{UserNS: user, Root: store.FirstID},
		})
	}
	if err := errors.Join(err, process.RemoveNamespaces(dir), removed(dir)); err != nil {
		if s != nil {
			s.Close()
		}
		return nil, c, fmt.Errorf("probe the host: %w", err)
	}
	return s, c, nil
}

// logSnapshots says what was chosen, and warns where disks are not bounded
// though nobody has asked for that.
func logSnapshots(log zerolog.Logger, s snapshot.Snapshotter, c probe.Choice, limit string) {
	d := s.Describe()
	log.Info().Str("snapshotter", d.Name).Str("filesystem", d.FileSystem).Str("ids", string(d.IDs)).
		Str("disk_limit", string(d.Limit)).Strs("notes", d.Notes).Strs("not", refused(c)).Msg("snapshots open")
	if d.Limit == snapshot.LimitNone && limit != probe.None {
		log.Warn().Str("cost", unboundedCosts).Str("remedy", unboundedRemedy).Msg("disks of instances are not bounded")
	}
}

// refused lists what was tried in vain, and why.
func refused(c probe.Choice) []string {
	var out []string
	for _, t := range c.Tries {
		if t.Err != nil {
			out = append(out, fmt.Sprintf("%s: %v", t.What, t.Err))
		}
	}
	return out
}

// looking is limit for somebody who only looks: quota groups of btrfs would be
// switched on for the whole file system.
func looking(root, limit string) string {
	if limit != probe.Loop && mounts.FileSystem(root) == "btrfs" {
		return probe.None
	}
	return limit
}

// removed removes a directory that may be gone already.
func removed(dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// existing returns the nearest directory at or above name that exists.
func existing(name string) string {
	for {
		if _, err := os.Stat(name); err == nil || name == filepath.Dir(name) {
			return name
		}
		name = filepath.Dir(name)
	}
}
