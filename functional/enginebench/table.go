package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// series are the times of one contender at one thing.
type series struct {
	name   string
	values []time.Duration
	failed error
}

func (s *series) at(q float64) time.Duration {
	if len(s.values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(s.values))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

func (s *series) median() time.Duration { return s.at(0.5) }

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

// A bar is a promise about two figures of this run, or about one.
type bar struct {
	what     string
	got, max float64
	unit     string
	// atLeast turns max into a minimum.
	atLeast bool
}

func (b bar) holds() bool {
	if b.atLeast {
		return b.got >= b.max
	}
	return b.got <= b.max
}

// report collects what is printed at the end.
type report struct {
	out    io.Writer
	series []*series
	bars   []bar
	notes  []string
}

// say writes to the report; a reader who has gone away is no reason to stop.
func (r *report) say(format string, args ...any) { _, _ = fmt.Fprintf(r.out, format, args...) }

func (r *report) add(s *series) *series {
	r.series = append(r.series, s)
	if s.failed != nil {
		r.say("  %-58s does not work here: %v\n", s.name, s.failed)
		return s
	}
	r.say("  %-58s %8s ms  (%s-%s) n=%d\n", s.name, ms(s.median()), ms(s.at(0.1)), ms(s.at(0.9)), len(s.values))
	return s
}

// ratio adds a bar on a/b; a series without values adds a note instead.
func (r *report) ratio(what string, a, b *series, limit float64) {
	if len(a.values) == 0 || len(b.values) == 0 {
		r.notes = append(r.notes, what+": not measured")
		return
	}
	r.bars = append(r.bars, bar{what: what, got: float64(a.median()) / float64(b.median()), max: limit, unit: "x"})
}

func (r *report) below(what string, got, limit float64, unit string) {
	r.bars = append(r.bars, bar{what: what, got: got, max: limit, unit: unit})
}

func (r *report) above(what string, got, limit float64, unit string) {
	r.bars = append(r.bars, bar{what: what, got: got, max: limit, unit: unit, atLeast: true})
}

// print writes the bars and says whether all hold.
func (r *report) print() bool {
	all := true
	r.say("\n| what | reached | bar | |\n|---|---|---|---|\n")
	for _, b := range r.bars {
		verdict, sign := "holds", "<="
		if b.atLeast {
			sign = ">="
		}
		if !b.holds() {
			verdict, all = "MISSED", false
		}
		r.say("| %s | %.3g %s | %s %.3g %s | %s |\n", b.what, b.got, b.unit, sign, b.max, b.unit, verdict)
	}
	for _, n := range r.notes {
		r.say("note: %s\n", n)
	}
	return all
}
