package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/probe"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/doctor"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/netbridge/firewall"
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
	// Config, unless nil, is a service's: what it says of the store counts
	// instead of the options above, and what the service talks to is asked too.
	Config *config.Config
}

// of are the options with what a service's configuration says.
func (o DoctorOptions) of(cfg *config.Config) DoctorOptions {
	g := cfg.Gantry
	o.StorePath, o.Cgroup, o.Snapshotter, o.DiskLimit = g.StorePath, g.CgroupName, g.Snapshotter, g.DiskLimit
	return o
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
	if o.Config != nil {
		o = o.of(o.Config)
	}
	if o.Storage {
		found, err := checkStorage(ctx, o)
		return DoctorReport{Storage: found}, err
	}
	h := &doctor.Host{
		Root: "/", Store: o.StorePath, LookPath: exec.LookPath, Clock: doctor.KernelClock,
		Output: func(ctx context.Context, name string, args ...string) ([]byte, error) {
			return exec.CommandContext(ctx, name, args...).Output()
		},
	}
	checks := append(doctor.Kernel(), doctor.Settings()...)
	r := DoctorReport{Host: doctor.Run(ctx, h, append(checks, engineChecks(o)...))}
	if o.Config != nil {
		around, done, err := surroundings(o.Config)
		if err != nil {
			return r, err
		}
		defer done()
		r.Host = append(r.Host, doctor.Together(ctx, h, around)...)
	}
	return r, nil
}

// engineChecks try what the engine will do.
func engineChecks(o DoctorOptions) []doctor.Check {
	return []doctor.Check{
		{
			Name: "disks", Run: o.checkDisks,
			Costs:  "no instance can start from this store",
			Remedy: "put [gantry] store_path on ext4, xfs or btrfs",
		},
		{
			Name: "disk-limits", Run: o.checkDiskLimits,
			Costs:  unboundedCosts,
			Remedy: unboundedRemedy,
		},
		{
			Name: "guest-view", Run: checkView,
			Costs:  "guests see the host's processors, memory, uptime and load",
			Remedy: "modprobe fuse, and its name into /etc/modules-load.d/gantry.conf; or [gantry] guest_view = off",
		},
		{
			Name: "control-groups", Run: checkGroups,
			Costs:  "limits cannot be set; no instance can start",
			Remedy: "mount cgroup v2 at /sys/fs/cgroup, writable, as systemd does",
		},
		doctor.IDs(store.FirstID, store.IDBlock),
		{
			Name: "packet-filter", Run: checkFilter,
			Costs:  "networks of gantry cloud have no security groups; hosts of a Neutron have its agent for that, which wants programs",
			Remedy: "a kernel with nf_tables, or iptables, ebtables and ipset with a kernel for them",
		},
	}
}

// checkFilter says by what ports can be filtered.
func checkFilter(_ context.Context, h *doctor.Host) (doctor.Level, string) {
	var have, missing []string
	note := func(name string, err error) {
		if err == nil {
			have = append(have, name)
		} else {
			missing = append(missing, name)
		}
	}
	ns, err := os.Open("/proc/self/ns/net")
	if err == nil {
		err = errors.Join(firewall.Probe(ns), ns.Close())
	}
	note("nf_tables", err)
	for _, name := range []string{"iptables-restore", "ebtables-restore", "ipset"} {
		_, err := h.LookPath(name)
		note(name, err)
	}
	found := strings.Join(have, ", ")
	if len(missing) > 0 {
		found = strings.TrimPrefix(found+"; not "+strings.Join(missing, ", "), "; ")
	}
	if slices.Contains(have, "nf_tables") || len(missing) == 1 {
		return doctor.OK, found
	}
	return doctor.Warn, found
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
	return doctor.Warn, fmt.Sprintf("none: %s", c)
}

// checkGroups makes a tree of groups beside that of the engine, and removes it.
func checkGroups(ctx context.Context, _ *doctor.Host) (doctor.Level, string) {
	name := fmt.Sprintf("gantry-doctor-%d", os.Getpid())
	found := ""
	tree, err := cgroup.New(ctx, cgroup.Options{Name: name})
	if err == nil {
		found = tree.Describe() // before the removal: it looks into the tree, which it would make again
	}
	if err := errors.Join(err, removeGroupTree(name)); err != nil {
		return doctor.Fail, err.Error()
	}
	return doctor.OK, found
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
