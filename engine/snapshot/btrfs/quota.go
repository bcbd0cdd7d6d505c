package btrfs

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/flat"
	"github.com/gantry-project/gantry/engine/snapshot/shelf"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Quota groups that are ours: of level 1, and 0x6761 ("ga") in the upper bits
// of the 48 that name a group. Subvolumes that a container makes in its own
// join the group with simple quotas.
const (
	firstGroup = 1<<48 | 0x6761<<32
	lastGroup  = firstGroup | (1<<32 - 1)
)

// groups keeps the quota groups of disks. The name of a disk's group is in the
// symbolic link "qgroup" in its directory.
type groups struct {
	root string
	// on is true when new disks get a group.
	on bool
	// simple is true when a container cannot get out of its group by a
	// subvolume of its own.
	simple bool
}

// open turns quotas on and finds out which kind they are.
func (g *groups) open() error {
	if err := enable(g.root); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrUnsupported, err)
	}
	if err := syncFS(g.root); err != nil {
		return err
	}
	status, err := quotaItems(g.root, qgroupStatusKey, 0, ^uint64(0))
	if err != nil {
		return err
	}
	if len(status) == 0 || len(status[0].data) < 24 {
		return fmt.Errorf("quotas stay off: %w", errdefs.ErrUnsupported)
	}
	// struct btrfs_qgroup_status_item: version, generation, flags
	g.simple = binary.LittleEndian.Uint64(status[0].data[16:])&statusSimple != 0
	g.on = true
	return nil
}

func syncFS(dir string) error { return shelf.SyncTree(dir) }

// make makes a group for a disk with the limit, and records it. 0 means that
// there are none here.
func (g *groups) make(disk string, limit snapshot.Limit) (uint64, error) {
	if !g.on {
		return 0, nil
	}
	const tries = 100
	for range tries {
		var r [4]byte
		_, _ = rand.Read(r[:]) // never fails
		id := uint64(firstGroup) | uint64(binary.NativeEndian.Uint32(r[:]))
		// the record comes first: a group without a disk is found by Check
		if err := flat.SetText(disk, "qgroup", strconv.FormatUint(id, 10)); err != nil {
			return 0, err
		}
		err := makeGroup(g.root, id)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if limit.Bytes > 0 {
			err = limitGroup(g.root, id, limit.Bytes)
		}
		return id, err
	}
	return 0, fmt.Errorf("no free quota group: %w", errdefs.ErrExhausted)
}

// of is the group of a disk, 0 if it has none.
func (g *groups) of(disk string) uint64 {
	id, err := strconv.ParseUint(flat.Text(disk, "qgroup"), 10, 64)
	if err != nil || id < firstGroup || id > lastGroup {
		return 0
	}
	return id
}

// usage is what only the group holds. The file system counts when it commits.
func (g *groups) usage(disk string) (snapshot.Usage, error) {
	id := g.of(disk)
	if err := syncFS(g.root); err != nil {
		return snapshot.Usage{}, err
	}
	items, err := quotaItems(g.root, qgroupInfoKey, id, id)
	if err != nil {
		return snapshot.Usage{}, err
	}
	// struct btrfs_qgroup_info_item: generation, rfer, rfer_cmpr, excl, excl_cmpr
	if len(items) == 0 || len(items[0].data) < 40 {
		return snapshot.Usage{}, fmt.Errorf("quota group %d: %w", id, errdefs.ErrNotFound)
	}
	return snapshot.Usage{Bytes: int64(binary.LittleEndian.Uint64(items[0].data[24:])), Inodes: -1}, nil
}

// lift takes the limit of a disk away. A group that is gone has none.
func (g *groups) lift(disk string) error {
	id := g.of(disk)
	if id == 0 {
		return nil
	}
	err := limitGroup(g.root, id, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTCONN) { // ENOTCONN: quotas are off
		return nil
	}
	return err
}

// drop removes the group of a disk whose subvolume, if not 0, is gone. What
// cannot be removed yet is found by Check.
func (g *groups) drop(disk string, volume uint64) {
	id := g.of(disk)
	if id == 0 {
		return
	}
	if volume != 0 {
		_ = leaveGroup(g.root, volume, id)
		_ = destroyGroup(g.root, volume) // newer kernels do it themselves
	}
	_ = destroyGroup(g.root, id)
}

// orphans reports groups of ours that no disk below active has, also when new
// disks get none.
func (g *groups) orphans(ctx context.Context, c *shelf.Checker, active string) error {
	if err := syncFS(g.root); err != nil {
		return err
	}
	items, err := quotaItems(g.root, qgroupInfoKey, firstGroup, lastGroup)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(active)
	if err != nil {
		return err
	}
	used := map[uint64]bool{}
	for _, e := range entries {
		used[g.of(filepath.Join(active, e.Name()))] = true
	}
	for _, i := range items {
		// Another store may be on this file system: only what holds nothing is
		// surely nobody's.
		if used[i.group] || len(i.data) < 40 || binary.LittleEndian.Uint64(i.data[8:]) != 0 {
			continue
		}
		c.Report(snapshot.FindingOrphanQuota, fmt.Sprintf("qgroup 1/%d", i.group&(1<<48-1)), "no disk has it",
			func() error { return destroyGroup(g.root, i.group) })
	}
	return ctx.Err()
}
