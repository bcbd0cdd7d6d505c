package netbridge

import (
	"errors"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// observe reads the named host links, and the whole guest if it has some of
// the plan's interfaces already.
func (s *linuxSession) observe(p Plan, names []string) (state, error) {
	st := state{Host: map[string]hostLink{}}
	names = slices.Clone(names)
	for _, i := range p.Interfaces {
		names = append(names, i.HostName)
		if i.Attachment == AttachBridge && !slices.Contains(names, i.Bridge) {
			names = append(names, i.Bridge)
		}
	}
	peers := map[string]int{}
	for _, name := range names {
		l, err := s.host.ByName(name)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return state{}, err
		}
		st.Host[name] = toHost(l)
		if l.Kind == "veth" {
			peers[name] = l.PeerNS
		}
	}
	if err := s.observeNarrow(p, &st); err != nil {
		return state{}, err
	}
	if err := s.observeLimits(p, &st); err != nil {
		return state{}, err
	}
	if s.guest == nil {
		return st, nil
	}
	if err := s.observePeers(&st, peers); err != nil {
		return state{}, err
	}
	return st, s.observeGuest(p, &st, len(peers) > 0)
}

// observePeers finds out which host ends have their peer in the guest.
func (s *linuxSession) observePeers(st *state, peers map[string]int) error {
	if len(peers) == 0 {
		return nil
	}
	id, err := s.host.NSID(s.guestNS)
	if err != nil {
		return err
	}
	for name, peer := range peers {
		l := st.Host[name]
		l.PeerHere = id >= 0 && peer == id
		st.Host[name] = l
	}
	return nil
}

func (s *linuxSession) observeGuest(p Plan, st *state, whole bool) error {
	links, err := s.guest.List()
	if err != nil {
		return err
	}
	at := map[int]int{}
	for _, l := range links {
		if l.Index == 1 {
			st.LoUp = l.Up
			continue
		}
		at[l.Index] = len(st.Guest)
		st.Guest = append(st.Guest, guestLink{Name: l.Name, MAC: l.MAC, Index: l.Index, MTU: l.MTU, Up: l.Up})
	}
	for n, i := range p.Interfaces {
		if h, ok := st.Host[i.HostName]; ok && h.PeerHere {
			s.indexes[n] = h.PeerIndex
		}
	}
	if !whole {
		return nil
	}
	addresses, err := s.guest.Addresses()
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if n, ok := at[a.Index]; ok {
			st.Guest[n].Addresses = append(st.Guest[n].Addresses, guestAddress{a.Prefix, a.Ours})
		}
	}
	routes, err := s.guest.Routes()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if n, ok := at[r.Index]; ok {
			st.Guest[n].Routes = append(st.Guest[n].Routes, guestRoute{Route{To: r.To, Via: r.Via}, r.Metric, r.Ours})
		}
	}
	return nil
}

// observeNarrow looks for the cause where a bridge's MTU is too small; it lists
// the host's links only then.
func (s *linuxSession) observeNarrow(p Plan, st *state) error {
	want := map[int]Interface{} // by index of the bridge
	for _, i := range p.Interfaces {
		if b, ok := st.Host[i.Bridge]; ok && i.Attachment == AttachBridge && b.MTU < i.MTU && want[b.Index].MTU < i.MTU {
			want[b.Index] = i
		}
	}
	if len(want) == 0 {
		return nil
	}
	links, err := s.host.List()
	if err != nil {
		return err
	}
	st.Narrow = map[string]string{}
	for _, l := range links {
		if _, _, ours := parseMark(l.Alias); ours {
			continue // follows its own plan
		}
		if i, ok := want[l.Master]; ok && l.Master != 0 && l.MTU < i.MTU {
			st.Narrow[i.Bridge] = l.Name
		}
	}
	return nil
}
