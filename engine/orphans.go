package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// checkOrphans finds what carries an id that has neither a record nor a disk,
// and temporary files. A container with a disk and no record is left alone, all
// of it.
func (d *StorageDoctor) checkOrphans(ctx context.Context, o CheckOptions, f *facts) (out []Finding, _ error) {
	for _, part := range []func(context.Context) (map[string]orphan, error){d.orphanDirs, d.orphanMounts, d.orphanGroups} {
		found, err := part(ctx)
		if err != nil {
			return nil, err
		}
		for _, what := range slices.Sorted(maps.Keys(found)) {
			x := found[what]
			_, recorded := f.containers[x.id]
			if recorded || f.disks[x.id] || f.busy[x.id] || x.id == "" && f.importing {
				continue
			}
			finding := Finding{Kind: FindingOrphan, What: what, Detail: x.detail}
			if o.Repair {
				finding.mend(x.remove(ctx))
			}
			out = append(out, finding)
		}
	}
	return out, nil
}

// orphan is something that would be one, if nobody has its id. Without an id it
// is temporary.
type orphan struct {
	id, detail string
	remove     func(context.Context) error
}

// orphanDirs are the entries of the directories that hold one for each container.
func (d *StorageDoctor) orphanDirs(context.Context) (map[string]orphan, error) {
	found := map[string]orphan{}
	for dir, what := range map[string]string{"ns": "pinned namespaces", "rootfs": "place of a mount", "console": "console log", "tmp": ""} {
		entries, err := os.ReadDir(filepath.Join(d.Root, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			name := filepath.Join(dir, entry.Name())
			x := orphan{id: entry.Name(), detail: what + " of no container", remove: func(context.Context) error {
				return os.RemoveAll(filepath.Join(d.Root, name))
			}}
			switch dir {
			case "console":
				x.id = consoleOf(entry.Name())
			case "ns":
				x.remove = func(context.Context) error { return process.RemoveNamespaces(filepath.Join(d.Root, name)) }
			case "rootfs":
				// never what may be mounted there
				x.remove = func(ctx context.Context) error {
					if err := d.Snapshots.Unmount(ctx, filepath.Join(d.Root, name)); err != nil {
						return err
					}
					return os.Remove(filepath.Join(d.Root, name))
				}
			case "tmp":
				x.id, x.detail = "", "temporary file of an operation that was cut off"
			}
			found[name] = x
		}
	}
	return found, nil
}

// orphanMounts are mounts of disks, wherever they are: their source names the
// container.
func (d *StorageDoctor) orphanMounts(context.Context) (map[string]orphan, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(m.Source, mountSource) || !strings.HasPrefix(m.Mountpoint, d.Root+"/"), false
	})
	if err != nil {
		return nil, err
	}
	found := map[string]orphan{}
	for _, m := range mounts {
		found[m.Mountpoint] = orphan{
			id: strings.TrimPrefix(m.Source, mountSource), detail: "mount of no container",
			remove: func(context.Context) error { return unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) },
		}
	}
	return found, nil
}

// mountSource begins the source of every mount of a disk (docs/ondisk.md).
const mountSource = "gantry:"

// orphanGroups are control groups; their processes end with them.
func (d *StorageDoctor) orphanGroups(ctx context.Context) (map[string]orphan, error) {
	groups, err := d.Cgroups.List(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]orphan{}
	for _, id := range groups {
		found["cgroup/"+id] = orphan{id: id, detail: d.groupDetail(ctx, id), remove: func(ctx context.Context) error {
			group, err := d.Cgroups.Open(ctx, id)
			if errors.Is(err, errdefs.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := group.Kill(ctx); err != nil {
				return err
			}
			return group.Delete(ctx)
		}}
	}
	return found, nil
}

func (d *StorageDoctor) groupDetail(ctx context.Context, id string) string {
	detail := "control group of no container"
	group, err := d.Cgroups.Open(ctx, id)
	if err != nil {
		return detail
	}
	if pids, err := group.Pids(ctx); err == nil && len(pids) > 0 {
		detail += fmt.Sprintf(", with %d processes", len(pids))
	}
	return detail
}
