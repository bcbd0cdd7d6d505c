package devcloud

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/network"
)

// Named is a host of a network. Name is "" for what is no instance.
type Named struct {
	Name      string
	Addresses []netip.Addr
}

// hostnames remembers what instances are called. Safe for concurrent use.
type hostnames struct {
	cell interface {
		Instance(ctx context.Context, id string) (objects.Instance, error)
	}

	mu    sync.Mutex // guards known
	known map[string]remembered
}

type remembered struct {
	name  string
	until time.Time
}

// rename is how long an old name may be told after an instance was renamed.
const rename = 30 * time.Second

// of is hosts with their names. An instance that is not found has none.
func (h *hostnames) of(ctx context.Context, hosts []network.Host) []Named {
	out := make([]Named, len(hosts))
	now := time.Now()
	for i, host := range hosts {
		if out[i].Addresses = host.Addresses; host.Instance != "" {
			out[i].Name = h.name(ctx, host.Instance, now)
		}
	}
	return out
}

func (h *hostnames) name(ctx context.Context, instance string, now time.Time) string {
	h.mu.Lock()
	have, ok := h.known[instance]
	h.mu.Unlock()
	if ok && now.Before(have.until) {
		return have.name
	}
	i, err := h.cell.Instance(ctx, instance)
	if err != nil {
		return "" // and is asked for again
	}
	have = remembered{i.Hostname(), now.Add(rename)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) >= mostNames {
		clear(h.known) // most are of instances that are gone
	}
	h.known[instance] = have
	return have.name
}

// mostNames is more than a host has instances.
const mostNames = 16384
