package netbridge

import (
	"fmt"
	"math"
)

// Limits are how much traffic an interface carries, as the guest sees it:
// inbound is what comes to it. The zero value limits nothing. Outbound traffic
// goes through a device of its own ("gtl" and 11 characters of the id): while
// somebody has taken that away, the guest sends nothing, until the next Set.
//
// What comes out of that device is not seen by filters at the host end's ingress
// (nftables' family netdev): filters of guests have to be the bridge's.
//
// Queueing disciplines and filters that others have on the host end stay,
// unless a limit takes their place; of those of ours (see netbridge/link) one
// that differs from the plan is made anew.
type Limits struct {
	Inbound, Outbound Limit
}

// Limit is one direction. Rate 0 is none.
type Limit struct {
	// Rate is what passes in the long run, Peak what passes at most while a
	// burst lasts (0: no less than the line), in bytes per second.
	Rate, Peak int64
	// Burst is how much may pass faster than Rate, in bytes; 0 leaves the choice
	// to the Plugger. It is never less than one frame.
	Burst int64
}

// MaxRate and MaxBurst are the most that a Limit can say.
const (
	MaxRate  = math.MaxUint32 - 1
	MaxBurst = 1 << 30
)

// limitKind is the kind of device that outbound traffic goes through: what it
// is given comes back to where it came from, after its queue.
const limitKind = "ifb"

// Bytes: the largest packet that a guest hands over in one piece, with the
// frames' headers, and how much waits at least.
const (
	leastBurst = 2 << 10
	usualBurst = 80 << 10
	leastQueue = 96 << 10
)

// effective says what a zero Burst is, so that limits can be compared.
func (l Limits) effective() Limits {
	return Limits{Inbound: l.Inbound.effective(), Outbound: l.Outbound.effective()}
}

func (l Limit) effective() Limit {
	if l.Rate == 0 {
		return Limit{}
	}
	if l.Burst == 0 {
		l.Burst = max(usualBurst, l.Rate/50) // 20 ms
	}
	l.Burst = max(l.Burst, leastBurst)
	return l
}

// queue is how much waits: 50 ms at that rate.
func (l Limit) queue() int64 { return max(leastQueue, l.Rate/20) }

func (l Limit) validate(what string, bad func(string, ...any)) {
	switch {
	case l.Rate < 0 || l.Rate > MaxRate || l.Peak < 0 || l.Peak > MaxRate || l.Burst < 0 || l.Burst > MaxBurst:
		bad("%s limit %s is out of range", what, l)
	case l.Rate == 0 && l != (Limit{}):
		bad("%s limit %s has no rate", what, l)
	case l.Peak != 0 && l.Peak <= l.Rate:
		bad("%s limit %s has a peak that is none", what, l)
	}
}

// String is "RATE/PEAK/BURST".
func (l Limit) String() string { return fmt.Sprintf("%d/%d/%d", l.Rate, l.Peak, l.Burst) }

// String is "in RATE/PEAK/BURST out RATE/PEAK/BURST".
func (l Limits) String() string { return fmt.Sprintf("in %s out %s", l.Inbound, l.Outbound) }

// hostNames are the devices of the host that an interface has.
func (i Interface) hostNames() []string {
	if i.Limits.Outbound.Rate == 0 {
		return []string{i.HostName}
	}
	return []string{i.HostName, limitName(i.ID)}
}
