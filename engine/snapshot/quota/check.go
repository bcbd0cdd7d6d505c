package quota

import (
	"context"
	"errors"

	"github.com/gantry-project/gantry/engine/snapshot"
)

// Reporter takes a finding and what mends it.
type Reporter interface {
	Report(kind snapshot.FindingKind, what, detail string, mend func() error)
}

// Check looks for loop devices and their mounts below root, and for limits of
// m, that belong to nothing.
func Check(ctx context.Context, c Reporter, root string, m *Manager) error {
	err := OrphanMounts(root, func(what string, mend func() error) {
		c.Report(snapshot.FindingOrphanMount, what, "its file is gone", mend)
	})
	return errors.Join(err,
		OrphanDevices(root, func(what, file string, mend func() error) {
			c.Report(snapshot.FindingOrphanDevice, what, "over "+file, mend)
		}),
		m.Orphans(ctx, func(what string, mend func() error) {
			c.Report(snapshot.FindingOrphanQuota, what, "a limit without a file", mend)
		}))
}
