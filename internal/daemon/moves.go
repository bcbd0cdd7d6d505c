package daemon

import (
	"context"
	"net"
	"strconv"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/local"
)

// moveListener is where hosts fetch the instances that move to them. The zero
// value is of a host whose instances do not move to others.
type moveListener struct{ net.Listener }

// listenMoves opens the port of [gantry] migration_port. A host on which that
// cannot be had does everything else.
func listenMoves(ctx context.Context, cfg *config.Config, log zerolog.Logger) moveListener {
	if cfg.Gantry.MigrationPort == 0 {
		return moveListener{}
	}
	address := net.JoinHostPort(cfg.Default.MyIP, strconv.Itoa(cfg.Gantry.MigrationPort))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		log.Error().Err(err).Msg("instances do not move to other hosts: [gantry] migration_port is not to be had")
		return moveListener{}
	}
	return moveListener{l}
}

// address is what other hosts are told, empty for none.
func (m moveListener) address() string {
	if m.Listener == nil {
		return ""
	}
	return m.Addr().String()
}

// serve gives instances away until ctx ends. The returned function waits for
// its end.
func (m moveListener) serve(ctx context.Context, d *local.Driver, log zerolog.Logger) (wait func()) {
	if m.Listener == nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.ServeMoves(ctx, m); err != nil {
			log.Error().Err(err).Msg("instances do not move to other hosts any more")
		}
	}()
	return func() { <-done }
}

// close is for a service that does not come to serve.
func (m moveListener) close() error {
	if m.Listener == nil {
		return nil
	}
	return m.Close()
}
