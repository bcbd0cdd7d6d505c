package main

import (
	"slices"
	"time"
)

// span is a stretch of time and what filled it.
type span struct {
	from, to time.Time
	what     string
}

// split says where the time between the cast and the save of vm_state=active went.
type split struct {
	cast, active time.Time
	rpc          []span // calls of the build to the conductor
	rest         []span // requests that neutron-server answered
	wait         span   // for network-vif-plugged; zero when there was none
	port         string // of the event, "" when none came
	eventAt      time.Time
}

// splitOf finds one boot in the messages. ok is false when the cast or the
// save is not among them.
func splitOf(messages []message, host, uuid string) (s split, ok bool) {
	var request string
	calls := map[string]message{}
	for _, m := range messages {
		about := slices.Contains(m.instances, uuid)
		switch {
		case m.method == "build_and_run_instance" && about && m.toHost(host):
			s.cast, request = m.at, m.request
		case s.cast.IsZero():
		case m.reply:
			if call, mine := calls[m.msgID]; mine {
				s.rpc = append(s.rpc, span{call.at, m.at, call.what()})
				delete(calls, m.msgID)
			}
		case m.method == "external_instance_event" && about && m.toHost(host) && len(m.plugged) > 0 && s.port == "":
			s.port, s.eventAt = m.plugged[0], m.at
		case m.key == "conductor" && m.msgID != "" && m.request == request:
			if m.active && about && s.active.IsZero() {
				s.active = m.at
				return s, true
			}
			calls[m.msgID] = m
		}
	}
	return s, false
}

// whole is the time from cast to active.
func (s split) whole() time.Duration { return s.active.Sub(s.cast) }

// own is what nothing else accounts for: neither a call to the conductor, nor a
// request to Neutron, nor the wait for its event. What happens at the same
// time counts once. Transit through the broker and the queue of neutron-server
// stay in, so it is an upper bound of the service's own work.
func (s split) own() time.Duration {
	var sum time.Duration
	for _, g := range s.gaps() {
		sum += g.to.Sub(g.from)
	}
	return sum
}

// elsewhere is what others did for the boot.
func (s split) elsewhere() []span { return slices.Concat(s.rpc, s.rest, []span{s.wait}) }

// gaps are the stretches between cast and active in which nobody else worked
// for the boot, named after what they follow and what comes next.
func (s split) gaps() []span { return gaps(s.elsewhere(), s.cast, s.active) }

// covered is how much of the time between from and to lies in one span or more.
func covered(spans []span, from, to time.Time) time.Duration {
	sum := to.Sub(from)
	for _, g := range gaps(spans, from, to) {
		sum -= g.to.Sub(g.from)
	}
	return sum
}

// gaps are the stretches between from and to that lie in no span.
func gaps(spans []span, from, to time.Time) []span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var out []span
	end, last := from, "cast"
	for _, s := range append(spans, span{from: to, to: to, what: "save of active"}) {
		if !s.to.After(end) || s.from.After(to) {
			continue
		}
		if s.from.After(end) {
			out = append(out, span{end, s.from, last + " .. " + s.what})
		}
		end, last = s.to, s.what
	}
	return out
}
