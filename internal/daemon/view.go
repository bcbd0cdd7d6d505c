package daemon

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/view/fuse"
	"github.com/gantry-project/gantry/engine/view/server"
	"github.com/gantry-project/gantry/internal/doctor"
	"github.com/gantry-project/gantry/internal/logging"
)

// Names below the engine's root.
const (
	viewDir = "view"
	viewLog = "view.log"
)

// Words of [gantry] guest_view; anything else is viewFull.
const (
	viewFull  = "full"
	viewFiles = "files"
	viewOff   = "off"
)

// viewCloses bounds how long a service that ends looks after the view.
const viewCloses = 10 * time.Second

// openView finds or starts what shows guests their own view. It is this same
// program under a verb of its own, and outlives the service. A host that has none
// shows its own numbers.
func openView(ctx context.Context, root, cgroupName, how string, groups cgroup.Tree, log zerolog.Logger) (v engine.GuestView, closeView func() error) {
	closeView = func() error { return nil }
	if how == viewOff {
		return v, closeView
	}
	self, err := os.Executable()
	if err != nil {
		log.Warn().Err(err).Msg("guests see the host's processors and memory")
		return v, closeView
	}
	build, err := ownBuild()
	if err != nil {
		log.Warn().Err(err).Msg("guests see the host's processors and memory")
		return v, closeView
	}
	dir := filepath.Join(root, viewDir)
	shown, err := server.Ensure(ctx, server.EnsureOptions{
		Dir: dir, Build: build, LogFile: filepath.Join(root, viewLog),
		Command: []string{self, "view", "--dir", dir, "--cgroup", cgroupName},
	})
	switch {
	case shown == nil:
		log.Warn().Err(err).Msg("guests see the host's processors and memory")
		return v, closeView
	case err != nil:
		log.Warn().Err(err).Msg("the guests' view is that of an earlier program")
	}
	return engine.GuestView{Dir: dir, Processors: how != viewFiles}, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), viewCloses)
		defer cancel()
		list, err := groups.List(ctx)
		return shown.Close(ctx, err == nil && len(list) == 0)
	}
}

// View serves what guests are shown of the host, until nobody wants it. It is run
// below a guard, which starts it again.
func View(ctx context.Context, dir, cgroupName string) error {
	build, err := ownBuild()
	if err != nil {
		return err
	}
	log := logging.New(os.Stderr, false).With().Int("pid", os.Getpid()).Logger()
	return server.Serve(ctx, server.ServeOptions{Dir: dir, Cgroup: cgroupName, Build: build, Log: log})
}

// checkView looks whether guests can be shown their own view.
func checkView(context.Context, *doctor.Host) (doctor.Level, string) {
	if err := fuse.Supported(); err != nil {
		return doctor.Note, err.Error()
	}
	return doctor.OK, fuse.Device
}
