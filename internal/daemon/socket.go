package daemon

import (
	"context"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/linux"
)

// serveSocket serves the engine's socket until ctx ends.
func serveSocket(ctx context.Context, socket string, o api.Options) error {
	l, err := api.Listen(socket)
	if err != nil {
		return err
	}
	o.Log.Info().Str("socket", socket).Msg("engine answers")
	if err := linux.CalmMonitor(); err != nil {
		o.Log.Warn().Err(err).Msg("the runtime's monitor is as busy as ever")
	}
	if err := linux.Shed(); err != nil {
		o.Log.Warn().Err(err).Msg("memory of the start is kept")
	}
	return api.New(ctx, o).Serve(ctx, l)
}

// novaOwns makes every container of a compute service Nova's: what it does not
// know it would take for an instance that has been deleted.
func novaOwns(map[string]string) string { return "Nova" }

// noCreate is why the compute service's socket makes no containers.
const noCreate = "instances of this host are made by Nova: use the OpenStack API"
