package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// byGroup returns the hosts that the policy of the instance's server group
// lets it be on, with their preference. Where the other members are is asked of
// placement: an allocation is there from the moment of the choice.
func (s *Scheduler) byGroup(ctx context.Context, instance string, hosts []*host) ([]*host, error) {
	if s.o.Groups == nil {
		return slices.Clone(hosts), nil
	}
	group, err := s.o.Groups.GroupOf(ctx, instance)
	if errors.Is(err, errdefs.ErrNotFound) {
		return slices.Clone(hosts), nil
	}
	if err != nil {
		return nil, fmt.Errorf("server group of %s: %w", instance, err)
	}
	members := slices.DeleteFunc(group.Members(), func(m string) bool { return m == instance })
	here := make(map[*host]int64, len(hosts))
	placed, err := s.placed(ctx, members, hosts, here)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(hosts)
	switch group.Policy() {
	case "affinity":
		// with members on hosts that are full or unusable, none is left
		out = slices.DeleteFunc(out, func(h *host) bool { return placed && here[h] == 0 })
	case "anti-affinity":
		most := int64(group.MaxServerPerHost())
		out = slices.DeleteFunc(out, func(h *host) bool { return here[h] >= most })
	case "soft-affinity":
		for _, h := range out {
			h.preference = here[h]
		}
	case "soft-anti-affinity":
		for _, h := range out {
			h.preference = -here[h]
		}
	}
	if len(out) == 0 {
		return nil, notEnough()
	}
	return out, nil
}

// placed counts the members at each of hosts and reports whether any member is
// at any node.
func (s *Scheduler) placed(ctx context.Context, members []string, hosts []*host, here map[*host]int64) (bool, error) {
	nodes, err := s.o.Nodes.ComputeNodes(ctx, cell.NodeQuery{})
	if err != nil {
		return false, err
	}
	total := int64(0)
	for _, n := range nodes {
		consumers, err := s.o.Placement.Consumers(ctx, n.UUID())
		if err != nil {
			return false, fmt.Errorf("consumers of %s: %w", n.Node(), err)
		}
		count := int64(0)
		for _, c := range consumers {
			if slices.Contains(members, c) {
				count++
			}
		}
		total += count
		for _, h := range hosts {
			if h.node.UUID() == n.UUID() {
				here[h] = count
			}
		}
	}
	return total > 0, nil
}
