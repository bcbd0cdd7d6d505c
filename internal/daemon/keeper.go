package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/engine/checkpoint"
	"github.com/gantry-project/gantry/engine/foreign"
	"github.com/gantry-project/gantry/engine/keeper"
	"github.com/gantry-project/gantry/engine/view/server"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/logging"
)

// keeperIdle is how long a keeper without containers and clients stays.
const keeperIdle = time.Minute

// Names below the engine's root.
const (
	keeperSocket = "keeper.sock"
	keeperLog    = "keeper.log"
	keeperPid    = "keeper.pid"
)

// openKeeper finds or starts the process that owns this host's containers. It
// is this same program, under a verb of its own, and outlives the service. One
// that an older program runs is replaced by this program.
func openKeeper(ctx context.Context, root string) (*keeper.Client, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	build, err := ownBuild()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(root, keeperSocket)
	return keeper.Ensure(ctx, keeper.Options{
		Build:   build,
		Socket:  socket,
		Command: []string{self, "keeper", "--socket", socket},
		LogFile: filepath.Join(root, keeperLog),
	})
}

// ownBuild tells this program from others that were installed before or will
// be after, whatever their version says.
func ownBuild() (string, error) {
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("look at own program: %w", err)
	}
	return fmt.Sprintf("%d bytes of %s", info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano)), nil
}

// Keeper serves the socket until ctx ends, or until no container and no client
// is left for a while. It is run below a guard, which starts it again.
func Keeper(ctx context.Context, socket string) error {
	build, err := ownBuild()
	if err != nil {
		return err
	}
	pidFile := filepath.Join(filepath.Dir(socket), keeperPid)
	if err := atomicfile.Write(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return err
	}
	log := logging.New(os.Stderr, false).With().Int("pid", os.Getpid()).Logger()
	runtimes, err := foreign.New(ctx, foreign.Options{Dir: foreignDir(filepath.Dir(socket)), Log: log})
	if err != nil {
		return err
	}
	err = keeper.Serve(ctx, keeper.ServeOptions{
		Socket: socket, Log: log, IdleExit: keeperIdle, OwnsProcess: true, Build: build,
		Foreign: runtimes, Restore: checkpoint.Restore,
	})
	if err != nil {
		return err
	}
	// no guest is left that could be shown anything
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), viewCloses)
	defer cancel()
	return server.End(ctx, filepath.Join(filepath.Dir(socket), viewDir))
}
