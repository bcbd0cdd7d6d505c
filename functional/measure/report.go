package measure

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// Series are the times of one contender at one thing.
type Series struct {
	Name   string
	Values []time.Duration
	// Failed is why there are no more of them.
	Failed error
}

// At is the quantile q, 0 when there are no values.
func (s *Series) At(q float64) time.Duration {
	if len(s.Values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(s.Values))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

// Median is At(0.5).
func (s *Series) Median() time.Duration { return s.At(0.5) }

// MS is a time in milliseconds.
func MS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

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

// Report says what is measured as it comes, and keeps the bars for the end. For
// one goroutine.
type Report struct {
	Out   io.Writer
	bars  []bar
	notes []string
}

// Say writes to the report; a reader who has gone away is no reason to stop.
func (r *Report) Say(format string, args ...any) { _, _ = fmt.Fprintf(r.Out, format, args...) }

// Add writes a line about a series.
func (r *Report) Add(s *Series) {
	if s.Failed != nil {
		r.Say("  %-58s does not work here: %v\n", s.Name, s.Failed)
		return
	}
	r.Say("  %-58s %8.2f ms  (%.2f-%.2f) n=%d\n", s.Name, MS(s.Median()), MS(s.At(0.1)), MS(s.At(0.9)), len(s.Values))
}

// Note adds a line below the table.
func (r *Report) Note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// Ratio adds a bar on the medians of a and b; a series without values adds a
// note instead.
func (r *Report) Ratio(what string, a, b *Series, limit float64) {
	if len(a.Values) == 0 || len(b.Values) == 0 {
		r.Note("%s: not measured", what)
		return
	}
	r.Below(what, float64(a.Median())/float64(b.Median()), limit, "x")
}

// Below adds a bar that got must not pass.
func (r *Report) Below(what string, got, limit float64, unit string) {
	r.bars = append(r.bars, bar{what: what, got: got, max: limit, unit: unit})
}

// Above adds a bar that got must reach.
func (r *Report) Above(what string, got, limit float64, unit string) {
	r.bars = append(r.bars, bar{what: what, got: got, max: limit, unit: unit, atLeast: true})
}

// Print writes the bars and says whether all hold.
func (r *Report) Print() bool {
	all := true
	r.Say("\n| what | reached | bar | |\n|---|---|---|---|\n")
	for _, b := range r.bars {
		verdict, sign := "holds", "<="
		if b.atLeast {
			sign = ">="
		}
		if !b.holds() {
			verdict, all = "MISSED", false
		}
		r.Say("| %s | %.3g %s | %s %.3g %s | %s |\n", b.what, b.got, b.unit, sign, b.max, b.unit, verdict)
	}
	for _, n := range r.notes {
		r.Say("note: %s\n", n)
	}
	return all
}
