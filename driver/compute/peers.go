package compute

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
)

// rpcCast is the version that casts between computes ask for: what is cast has
// not changed since (nova/compute/rpcapi.py).
const rpcCast = "6.0"

// NewPeers returns the compute services that caller reaches.
func NewPeers(caller messaging.Caller) Peers { return peers{caller} }

type peers struct{ caller messaging.Caller }

// Cast implements Peers.
func (p peers) Cast(ctx context.Context, rc messaging.RequestContext, host, method string, args map[string]any) error {
	t := messaging.Target{Topic: "compute", Server: host, Version: rpcCast}
	if err := p.caller.Cast(ctx, rc, t, method, args); err != nil {
		return fmt.Errorf("cast %s to %s: %w", method, host, err)
	}
	return nil
}
