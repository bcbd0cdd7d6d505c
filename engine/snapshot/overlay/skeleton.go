package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/shelf"
)

// skeleton is a directory of the store that lies below the lowest layer of every
// disk. It has what a container's own file systems are mounted on, so that
// nothing has to be made on the disk of an image that lacks them: on the way
// through an overlay each would be made in its work directory and moved. It is
// of no image: neither View nor Changes shows it.
const skeleton = "skeleton"

// mountPoints are the directories of the skeleton: they belong to the
// container's root and are those of the engine's default profile.
func mountPoints() []string { return []string{"dev", "proc", "sys"} }

// makeSkeleton makes what is missing of the skeleton, whose own directory is
// there.
func makeSkeleton(store *shelf.Shelf) error {
	for _, name := range mountPoints() {
		dir := store.Path(skeleton, name)
		err := os.Mkdir(dir, 0o755)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Chmod(dir, 0o755) // whatever the umask, and a crash in between
		}
		if err != nil {
			return fmt.Errorf("open snapshots: %w", err)
		}
	}
	return nil
}

// checkSkeleton looks for what is missing of the skeleton.
func (s *Snapshotter) checkSkeleton(_ context.Context, c *shelf.Checker) error {
	for _, name := range mountPoints() {
		if there, err := shelf.Exists(s.store.Path(skeleton, name)); err != nil {
			return err
		} else if !there {
			c.Report(snapshot.FindingMissingDir, skeleton+"/"+name, "is not there", func() error { return makeSkeleton(s.store) })
		}
	}
	return nil
}
