package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/store"
)

// The kinds of findings of the engine's own; those of the disks and layers are
// snapshot.FindingKind.
const (
	// FindingDamagedRecord cannot be read. Not mended: what it speaks of is left
	// alone, and a delete of its container removes all of it.
	FindingDamagedRecord = "damaged-record"
	// FindingLostRecord: a disk that no record knows. Not mended: it holds
	// somebody's data, and the record may come back from a backup.
	FindingLostRecord = "disk-without-record"
	// FindingOrphan: a directory, mount, namespace or control group of an id
	// that has neither a record nor a disk. Removed, with its processes.
	FindingOrphan = "orphan"
	// FindingInterrupted: an operation was cut off. The next opening of the
	// engine settles it.
	FindingInterrupted = "interrupted"
	// FindingExpiredLease: removed.
	FindingExpiredLease = "expired-lease"
	// FindingBrokenImage: an image lacks a layer. Its record is removed if no
	// container is made of it, so that it can be imported again.
	FindingBrokenImage = "broken-image"
	// FindingDamagedLayer: a layer's files are not those that it came with. The
	// record of its image is removed if no container is made of it, so that it is
	// imported again.
	FindingDamagedLayer = "damaged-layer"
)

// Finding is one thing of the state that is not as it should be.
type Finding struct {
	Kind string `json:"kind"`
	// What is an id, a digest, a record (bucket/key) or a path below the root.
	What   string `json:"what"`
	Detail string `json:"detail"`
	// Mended is true when it is well now.
	Mended bool `json:"mended"`
}

// CheckOptions of a check of the state.
type CheckOptions struct {
	// Repair mends what can be without losing anybody's data.
	Repair bool
	// Deep reads all content and compares digests.
	Deep bool
}

// StorageDoctor checks the state of an engine that is not open: it needs the
// records, with Writer to mend, and no service may run meanwhile. For one that
// is open use Engine.Check.
type StorageDoctor struct {
	// Root is the engine's.
	Root    string
	Records store.Reader
	// Writer is the same store; nil if nothing is to be mended.
	Writer    store.Store
	Snapshots snapshot.Snapshotter
	Cgroups   cgroup.Tree
	// Intents are what the journal holds of this boot.
	Intents []store.Intent
}

// storageChecks are the parts of a check, in their order.
var storageChecks = []struct {
	name string
	run  func(*StorageDoctor, context.Context, CheckOptions, *facts) ([]Finding, error)
}{
	{"records", (*StorageDoctor).checkRecords},
	{"operations", (*StorageDoctor).checkIntents},
	{"images", (*StorageDoctor).checkImages},
	{"layers", (*StorageDoctor).checkLayers},
	{"disks and layers", (*StorageDoctor).checkSnapshots},
	{"leases", (*StorageDoctor).checkLeases},
	{"left-overs", (*StorageDoctor).checkOrphans},
}

// facts are what all checks compare with.
type facts struct {
	containers map[string]store.Container
	images     []store.Image
	damaged    []string
	disks      map[string]bool
	needed     map[string]bool // layers
	busy       map[string]bool // ids with an operation under way
	importing  bool
}

// Check looks for what a power cut, a crash or a hand has left. It never touches
// the disk of a container, and while a record is damaged it removes nothing,
// since nobody knows what that one needs. The findings that are not mended are
// the orphans and defects of the host; the error is of the checking itself.
func (d *StorageDoctor) Check(ctx context.Context, o CheckOptions) ([]Finding, error) {
	f, err := d.facts(ctx)
	if err != nil {
		return nil, fmt.Errorf("check storage: %w", err)
	}
	o.Repair = o.Repair && d.Writer != nil && len(f.damaged) == 0
	var all []Finding
	for _, c := range storageChecks {
		found, err := c.run(d, ctx, o, f)
		if err != nil {
			return all, fmt.Errorf("check storage: %s: %w", c.name, err)
		}
		slices.SortFunc(found, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.What, b.What)) })
		all = append(all, found...)
	}
	return all, nil
}

func (d *StorageDoctor) facts(ctx context.Context) (*facts, error) {
	f := &facts{containers: map[string]store.Container{}, disks: map[string]bool{}, needed: map[string]bool{}, busy: map[string]bool{}}
	records, err := d.Records.Containers(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range records {
		f.containers[c.ID] = c
	}
	if f.images, err = d.Records.Images(ctx); err != nil {
		return nil, err
	}
	if f.damaged, err = d.Records.Damaged(ctx); err != nil {
		return nil, err
	}
	disks, err := d.Snapshots.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range disks {
		f.disks[key] = true
	}
	for _, in := range d.Intents {
		f.busy[in.ID] = true
		f.importing = f.importing || in.Op == opImport || in.Op == opCollect || in.Op == opView
	}
	for _, img := range f.images {
		for _, id := range img.Chain {
			f.needed[id] = true
		}
	}
	leases, err := d.Records.Leases(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range leases {
		for _, id := range l.Layers {
			f.needed[id] = true
		}
	}
	return f, nil
}

func (d *StorageDoctor) checkRecords(_ context.Context, _ CheckOptions, f *facts) (out []Finding, _ error) {
	for _, key := range f.damaged {
		out = append(out, Finding{Kind: FindingDamagedRecord, What: key, Detail: "it cannot be read; nothing is removed while it is there"})
	}
	for id, c := range f.containers {
		if !f.disks[id] && !f.busy[id] {
			out = append(out, Finding{
				Kind: FindingInterrupted, What: id,
				Detail: fmt.Sprintf("container of image %s has no disk: half made or half removed; the next start removes it", c.Image),
			})
		}
	}
	for id := range f.disks {
		if _, ok := f.containers[id]; !ok && !f.busy[id] {
			out = append(out, Finding{Kind: FindingLostRecord, What: id, Detail: "no readable record; it is left as it is, a delete of the container removes it"})
		}
	}
	return out, nil
}

func (d *StorageDoctor) checkIntents(_ context.Context, _ CheckOptions, _ *facts) (out []Finding, _ error) {
	for _, in := range d.Intents {
		out = append(out, Finding{
			Kind: FindingInterrupted, What: in.ID,
			Detail: fmt.Sprintf("%s began at %s and did not end", in.Op, in.Begun.UTC().Format("2006-01-02T15:04:05Z")),
		})
	}
	return out, nil
}

// checkImages finds images that lack a layer.
func (d *StorageDoctor) checkImages(ctx context.Context, o CheckOptions, f *facts) (out []Finding, _ error) {
	for _, img := range f.images {
		for _, id := range img.Chain {
			there, err := d.Snapshots.HasLayer(ctx, id)
			if err != nil {
				return nil, err
			}
			if there {
				continue
			}
			delete(f.needed, id) // it is told here, once
			finding := Finding{Kind: FindingBrokenImage, What: img.Ref, Detail: "layer " + id + " is gone"}
			if o.Repair {
				err := d.Writer.DeleteImage(ctx, img.Ref)
				finding.mend(err)
			}
			out = append(out, finding)
			break
		}
	}
	return out, nil
}

// mend notes how a repair went.
func (f *Finding) mend(err error) {
	f.Mended = err == nil
	if err != nil {
		f.Detail += "; not mended: " + err.Error()
	}
}

// checkSnapshots asks the snapshotter. Every disk counts as needed: one without
// a record is checkRecords'.
func (d *StorageDoctor) checkSnapshots(ctx context.Context, o CheckOptions, f *facts) (out []Finding, _ error) {
	req := snapshot.CheckRequest{Repair: o.Repair}
	if len(f.damaged) == 0 && !f.importing {
		req.References = &snapshot.References{}
		for id := range f.needed {
			req.References.Layers = append(req.References.Layers, id)
		}
		for id := range f.disks {
			req.References.Disks = append(req.References.Disks, id)
		}
	}
	found, err := d.Snapshots.Check(ctx, req)
	for _, s := range found {
		out = append(out, Finding{Kind: string(s.Kind), What: s.What, Detail: s.Detail, Mended: s.Mended})
	}
	return out, err
}

func (d *StorageDoctor) checkLeases(ctx context.Context, o CheckOptions, _ *facts) (out []Finding, _ error) {
	leases, err := d.Records.Leases(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, l := range leases {
		if l.Live(now) {
			continue
		}
		finding := Finding{Kind: FindingExpiredLease, What: l.ID, Detail: fmt.Sprintf("of %s, until %s", l.Holder, l.Expires.UTC())}
		if o.Repair {
			finding.mend(d.Writer.DeleteLease(ctx, l.ID))
		}
		out = append(out, finding)
	}
	return out, nil
}

// Check looks after the state of an open engine without changing it; what is
// under way is no finding. The error is of the checking itself.
func (e *Engine) Check(ctx context.Context, o CheckOptions) ([]Finding, error) {
	open, err := e.opts.Journal.Intents(ctx)
	if err != nil {
		return nil, err
	}
	d := &StorageDoctor{
		Root: e.opts.Root, Records: e.opts.Store, Snapshots: e.opts.Snapshots, Cgroups: e.opts.Cgroups, Intents: open,
	}
	o.Repair = false
	found, err := d.Check(ctx, o)
	if err != nil {
		return nil, err
	}
	// a second look: what has come or gone between two readings is no finding
	again, err := d.Check(ctx, o)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(f Finding) bool {
		return f.Kind == FindingInterrupted && slices.ContainsFunc(open, func(in store.Intent) bool { return in.ID == f.What }) || !slices.Contains(again, f)
	}), nil
}
