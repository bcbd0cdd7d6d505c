package netbridge

import (
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/link"
)

// observeLimits reads the limits of host ends that are there.
func (s *linuxSession) observeLimits(p Plan, st *state) error {
	for _, i := range p.Interfaces {
		h, ok := st.Host[i.HostName]
		if !ok {
			continue
		}
		var err error
		if h.Limits.Inbound, err = s.observeLimit(h.Index); err != nil {
			return err
		}
		if i.Limits.Outbound.Rate != 0 {
			if h.Limits.Outbound, err = s.observeOutbound(p.Owner, i, h); err != nil {
				return err
			}
		}
		st.Host[i.HostName] = h
	}
	return nil
}

// observeOutbound is zero unless everything that it needs is there.
func (s *linuxSession) observeOutbound(owner string, i Interface, h hostLink) (Limit, error) {
	l, err := s.host.ByName(limitName(i.ID))
	if errors.Is(err, errdefs.ErrNotFound) {
		return Limit{}, nil
	}
	if err != nil {
		return Limit{}, err
	}
	to, err := s.host.Redirected(h.Index)
	if err != nil || to != l.Index || !l.Up || l.Alias != mark(owner, i.ID) {
		return Limit{}, err
	}
	return s.observeLimit(l.Index)
}

func (s *linuxSession) observeLimit(index int) (Limit, error) {
	q, ours, err := s.host.Limit(index)
	if err != nil || !ours {
		return Limit{}, err
	}
	l := Limit{Rate: q.Rate, Peak: q.Peak}
	l.Burst = q.Bytes - l.queue()
	return l, nil
}

// limit makes the limits of an interface hold.
func (s *linuxSession) limit(owner string, i Interface, l Limits) error {
	h, err := s.host.ByName(i.HostName)
	if err != nil {
		return err
	}
	if err := s.setLimit(h, l.Inbound); err != nil {
		return err
	}
	if l.Outbound.Rate == 0 {
		return s.host.Redirect(h.Index, 0)
	}
	name := limitName(i.ID)
	d, err := s.host.ByName(name)
	if errors.Is(err, errdefs.ErrNotFound) {
		if err := s.host.AddIFB(name); err != nil {
			return err
		}
		if err := s.withoutIPv6(name); err != nil {
			return err
		}
		d, err = s.host.ByName(name)
	}
	if err != nil {
		return err
	}
	half := d.Alias == "" && !d.Up // a crash was faster than the mark
	if d.Kind != limitKind || d.Alias != mark(owner, i.ID) && !half {
		return fmt.Errorf("host device %s (%s, alias %q) is not its own: %w", name, d.Kind, d.Alias, errdefs.ErrConflict)
	}
	if err := s.host.Set(d.Index, link.Change{Alias: mark(owner, i.ID), Up: true}); err != nil {
		return err
	}
	if err := s.setLimit(d, l.Outbound); err != nil {
		return err
	}
	return s.host.Redirect(h.Index, d.Index)
}

func (s *linuxSession) setLimit(d link.Link, l Limit) error {
	if l.Rate != 0 {
		return s.host.SetLimit(d.Index, link.Limit{Rate: l.Rate, Peak: l.Peak, Burst: l.Burst, Bytes: l.Burst + l.queue()})
	}
	return s.host.DeleteLimit(d.Index)
}
