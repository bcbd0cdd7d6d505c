package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/probe"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/doctor"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// DoctorOptions say what to look at.
type DoctorOptions struct {
	// StorePath is the engine's root, absolute.
	StorePath string
	// Cgroup is the name of the control group of all containers.
	Cgroup string
	// Snapshotter and DiskLimit are the options of the service; empty is auto.
	Snapshotter, DiskLimit string
	// Storage looks at the engine's state instead of the host; no service may
	// run. Repair mends what can be, Deep compares all digests.
	Storage, Repair, Deep bool
}

// DoctorReport is what was found.
type DoctorReport struct {
	Host    []doctor.Result  `json:"host,omitempty"`
	Storage []engine.Finding `json:"storage,omitempty"`
}

// Healthy is false when the host lacks what instances need, or when something
// of the state is left that was not mended.
func (r DoctorReport) Healthy() bool {
	for _, h := range r.Host {
		if h.Level == doctor.Fail {
			return false
		}
	}
	for _, f := range r.Storage {
		if !f.Mended {
			return false
		}
	}
	return true
}

// Doctor looks at the host, or at the engine's state. The error is of the
// looking: errdefs.ErrConflict says that a service has the state.
func Doctor(ctx context.Context, o DoctorOptions) (DoctorReport, error) {
	if o.Storage {
		found, err := checkStorage(ctx, o)
		return DoctorReport{Storage: found}, err
	}
	h := &doctor.Host{
		Root: "/", Store: o.StorePath, LookPath: exec.LookPath,
		Output: func(ctx context.Context, name string, args ...string) ([]byte, error) {
			return exec.CommandContext(ctx, name, args...).Output()
		},
	}
	checks := append(doctor.Kernel(), doctor.Settings()...)
	return DoctorReport{Host: doctor.Run(ctx, h, append(checks, engineChecks(o)...))}, nil
}

// engineChecks try what the engine will do.
func engineChecks(o DoctorOptions) []doctor.Check {
	return []doctor.Check{
		{Name: "disks", Costs: "no instance can start from this store", Run: o.checkDisks},
		{Name: "disk-limits", Costs: unboundedCosts, Run: o.checkDiskLimits},
		{Name: "guest-view", Costs: "guests see the host's processors, memory, uptime and load", Run: checkView},
		{Name: "control-groups", Costs: "limits cannot be set; no instance can start", Run: checkGroups},
	}
}

// tryDisks opens a store of snapshots beside the engine's, as the service would
// open that, and removes it.
func (o DoctorOptions) tryDisks(ctx context.Context, h *doctor.Host) (d snapshot.Description, c probe.Choice, err error) {
	dir, err := os.MkdirTemp(existing(h.Store), ".gantry-doctor-")
	if err != nil {
		return d, c, err
	}
	s, c, err := openSnapshots(ctx, dir, o.Snapshotter, looking(dir, o.DiskLimit))
	if err == nil {
		d = s.Describe()
		s.Close()
	}
	return d, c, errors.Join(err, os.RemoveAll(dir))
}

// checkDisks says what keeps disks here. A file system on which they have to
// be copies is a warning.
func (o DoctorOptions) checkDisks(ctx context.Context, h *doctor.Host) (doctor.Level, string) {
	d, c, err := o.tryDisks(ctx, h)
	if err != nil {
		return doctor.Fail, err.Error()
	}
	found := fmt.Sprintf("%s on %s, ids %s", d.Name, d.FileSystem, d.IDs)
	if !d.SharesLayers && o.Snapshotter != d.Name {
		return doctor.Warn, fmt.Sprintf("%s: each instance has a copy of its image; %s", found, c)
	}
	return doctor.OK, found
}

// checkDiskLimits says what bounds disks here, and what to do when nothing does.
func (o DoctorOptions) checkDiskLimits(ctx context.Context, h *doctor.Host) (doctor.Level, string) {
	d, c, err := o.tryDisks(ctx, h)
	switch {
	case err != nil:
		return doctor.Fail, err.Error()
	case d.Limit != snapshot.LimitNone:
		return doctor.OK, string(d.Limit)
	case o.DiskLimit == probe.None:
		return doctor.Note, "none, as chosen"
	case d.Name == "btrfs":
		return doctor.OK, fmt.Sprintf("%s, which the service switches on for the whole file system", snapshot.LimitQgroup)
	}
	return doctor.Warn, fmt.Sprintf("none: %s; to have some: %s", c, unboundedRemedy)
}

// checkGroups makes a tree of groups beside that of the engine, and removes it.
func checkGroups(ctx context.Context, _ *doctor.Host) (doctor.Level, string) {
	name := fmt.Sprintf("gantry-doctor-%d", os.Getpid())
	tree, err := cgroup.New(ctx, cgroup.Options{Name: name})
	if err := errors.Join(err, removeGroupTree(name)); err != nil {
		return doctor.Fail, err.Error()
	}
	return doctor.OK, tree.Describe()
}

// removeGroupTree removes an empty tree of groups from all hierarchies.
func removeGroupTree(name string) error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		dirs, err := filepath.Glob(pattern + name)
		errs = append(errs, err)
		for _, dir := range dirs {
			errs = append(errs, removed(dir))
		}
	}
	return errors.Join(errs...)
}

// checkStorage opens the engine's state as a service would, which removes what
// is half made, and compares all of it.
func checkStorage(ctx context.Context, o DoctorOptions) (_ []engine.Finding, err error) {
	name := filepath.Join(o.StorePath, "gantry.db")
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("check storage: there is no engine at %s: %w", o.StorePath, errdefs.ErrNotFound)
	}
	d := &engine.StorageDoctor{Root: o.StorePath}
	if o.Repair {
		db, err := store.Open(name)
		if err != nil {
			return nil, explainOwner(err)
		}
		d.Records, d.Writer = db, db
	} else if d.Records, err = store.OpenReadOnly(name); err != nil {
		return nil, explainOwner(err)
	}
	defer func() { err = errors.Join(err, d.Records.Close()) }()
	boot, err := linux.BootID()
	if err != nil {
		return nil, err
	}
	was, open, err := store.ReadLog(filepath.Join(o.StorePath, journalName))
	if err != nil {
		return nil, err
	}
	if was == boot {
		d.Intents = open
	}
	snapshots, _, err := openSnapshots(ctx, o.StorePath, o.Snapshotter, looking(o.StorePath, probe.Auto))
	if err != nil {
		return nil, err
	}
	defer snapshots.Close()
	if d.Cgroups, err = cgroup.New(ctx, cgroup.Options{Name: o.Cgroup}); err != nil {
		return nil, err
	}
	d.Snapshots = snapshots
	return d.Check(ctx, engine.CheckOptions{Repair: o.Repair, Deep: o.Deep})
}

// explainOwner says what to do when a service has the store.
func explainOwner(err error) error {
	if errors.Is(err, errdefs.ErrConflict) {
		return fmt.Errorf("check storage: a service runs; stop it for the check, instances go on: %w", err)
	}
	return err
}
