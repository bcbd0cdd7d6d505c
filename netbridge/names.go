package netbridge

import (
	"slices"
	"strconv"
	"strings"
)

// guestPrefix begins the names that the Plugger gives.
const guestPrefix = "eth"

// named fills in the guest names that the plan leaves open. It is pure. What is
// there keeps its name, so that a port which goes does not rename the ones
// after it under the guest's hands; devices that go away with the leftovers, or
// that are half made, hold no name.
func named(p Plan, leftovers []string, st state) Plan {
	d := differ{plan: p, state: st}
	taken := map[string]bool{}
	keeps := make([]string, len(p.Interfaces))
	own := map[int]bool{} // indexes of guest ends that are the owner's
	for _, name := range leftovers {
		if h, ok := st.Host[name]; ok && h.PeerHere {
			own[h.PeerIndex] = true
		}
	}
	for n, i := range p.Interfaces {
		if h, ok := st.Host[i.HostName]; ok && h.PeerHere {
			own[h.PeerIndex] = true
		}
		_, g, whole := d.pair(i)
		switch {
		case i.GuestName != "":
			taken[i.GuestName] = true
		case whole && given(g.Name) && !taken[g.Name]:
			keeps[n] = g.Name
			taken[g.Name] = true
		}
	}
	for _, g := range st.Guest { // what the guest has made by itself
		if !own[g.Index] {
			taken[g.Name] = true
		}
	}
	p.Interfaces = slices.Clone(p.Interfaces)
	for n := range p.Interfaces {
		i := &p.Interfaces[n]
		if i.GuestName == "" {
			i.GuestName = keeps[n]
		}
		for k := 0; i.GuestName == ""; k++ {
			if name := guestPrefix + strconv.Itoa(k); !taken[name] {
				i.GuestName, taken[name] = name, true
			}
		}
	}
	return p
}

// given says whether a name is one that the Plugger gives.
func given(name string) bool {
	number, ok := strings.CutPrefix(name, guestPrefix)
	if !ok {
		return false
	}
	k, err := strconv.Atoi(number)
	return err == nil && k >= 0 && strconv.Itoa(k) == number
}
