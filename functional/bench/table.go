package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// stats are of one measure over the boots of a series.
type stats struct{ median, low, high float64 }

// statsOf is all zero for no values.
func statsOf(values []float64) stats {
	if len(values) == 0 {
		return stats{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	s := stats{v[mid], v[0], v[len(v)-1]}
	if len(v)%2 == 0 {
		s.median = (v[mid-1] + v[mid]) / 2
	}
	return s
}

// measure is one line of the table: what it takes of a sample, and how often
// its values are to be printed.
type measure struct {
	title  string
	scale  float64 // of the printed unit, in units per second
	digits int
	of     func(sample) (time.Duration, bool)
	ratio  bool // print the ratio to the fake driver
}

func measures() []measure {
	return []measure{
		{"POST -> ACTIVE, s", 1, 2, func(s sample) (time.Duration, bool) { return s.boot, true }, true},
		{"cast -> ACTIVE, s", 1, 2, func(s sample) (time.Duration, bool) { return s.split.whole(), s.traced }, true},
		{"... of it waiting for network-vif-plugged, s", 1, 2, func(s sample) (time.Duration, bool) {
			return s.split.wait.to.Sub(s.split.wait.from), s.waited
		}, false},
		{"... of it conductor or Neutron busy, s", 1, 2, func(s sample) (time.Duration, bool) {
			return covered(slices.Concat(s.split.rpc, s.split.rest), s.split.cast, s.split.active), s.traced && s.split.rest != nil
		}, false},
		{"... own share, ms", 1000, 0, func(s sample) (time.Duration, bool) { return s.split.own(), s.traced && s.split.rest != nil }, false},
		{"DELETE -> gone, s", 1, 2, func(s sample) (time.Duration, bool) { return s.gone, true }, true},
		{"CPU per boot+delete, s", 1, 3, func(s sample) (time.Duration, bool) { return s.cpu, true }, true},
	}
}

// values are those of the samples that have the measure.
func (m measure) values(samples []sample) []float64 {
	var out []float64
	for _, s := range samples {
		if d, ok := m.of(s); ok {
			out = append(out, d.Seconds()*m.scale)
		}
	}
	return out
}

// cell is the median with its range, and the ratio of the medians to baseline.
func (m measure) cell(samples, baseline []sample) string {
	values := m.values(samples)
	if len(values) == 0 {
		return "-"
	}
	s := statsOf(values)
	text := fmt.Sprintf("%.*f (%.*f-%.*f)", m.digits, s.median, m.digits, s.low, m.digits, s.high)
	if base := statsOf(m.values(baseline)); m.ratio && base.median > 0 {
		text += fmt.Sprintf(" x%.2f", s.median/base.median)
	}
	return text
}

// print writes the table and what belongs to it.
func (b *bench) print(all []*series) {
	b.say("\n%s", machine())
	b.say("%d boots each, median (lowest-highest); x is the ratio to the fake driver's median in the boots taken in turns with these.\n", b.set.boots)
	ran := slices.DeleteFunc(slices.Clone(all), func(s *series) bool { return s.failed != nil || len(s.samples) == 0 })
	if len(ran) == 0 {
		b.say("nothing was measured")
		return
	}
	row := func(title string, cell func(*series) string) {
		cells := []string{title}
		for _, s := range ran {
			cells = append(cells, cell(s))
		}
		b.say("| %s |", strings.Join(cells, " | "))
	}
	row("", func(s *series) string { return s.of.title })
	row("---", func(*series) string { return "---" })
	row("waits for network-vif-plugged", func(s *series) string {
		return map[bool]string{true: "yes, as nova-compute does for VMs", false: "no"}[s.of.name == gantryName]
	})
	for _, m := range measures() {
		row(m.title, func(s *series) string { return m.cell(s.samples, s.baseline) })
	}
	base := all[0]
	row("CPU idle, ms per s", func(s *series) string {
		return fmt.Sprintf("%.2f", s.idle.Seconds()*1000/s.idleFor.Seconds())
	})
	row(fmt.Sprintf("RSS after %d boots, MiB", b.set.boots), func(s *series) string { return weight(s.rss, base.rss, s == base) })
	row(fmt.Sprintf("PSS after %d boots, MiB", b.set.boots), func(s *series) string { return weight(s.pss, base.pss, s == base) })
	row("processes", func(s *series) string { return fmt.Sprint(s.processes) })
	row("load at the start", func(s *series) string { return s.load })
	for _, s := range ran {
		b.printSteps(s)
	}
}

func weight(mib, base float64, isBase bool) string {
	if isBase || base == 0 {
		return fmt.Sprintf("%.1f", mib)
	}
	return fmt.Sprintf("%.1f x%.2f", mib, mib/base)
}

// printSteps writes what gantry's own log says of its boots.
func (b *bench) printSteps(s *series) {
	if s.of.log == "" {
		return
	}
	var line []string
	for _, name := range []string{"image", "create", "network", "start", "build"} {
		var values []float64
		for _, one := range s.samples {
			if ms, ok := s.steps[one.uuid][name]; ok {
				values = append(values, ms)
			}
		}
		if st := statsOf(values); len(values) > 0 {
			line = append(line, fmt.Sprintf("%s %.1f (%.1f-%.1f)", name, st.median, st.low, st.high))
		}
	}
	defer b.printGaps(s)
	b.say("\n%s, steps of its own log, ms since the spawn began (build: since the cast): %s", s.of.title, strings.Join(line, ", "))
}

// printGaps writes where the own share of the median boot went.
func (b *bench) printGaps(s *series) {
	boots := slices.DeleteFunc(slices.Clone(s.samples), func(one sample) bool { return !one.traced })
	if len(boots) == 0 {
		return
	}
	slices.SortFunc(boots, func(x, y sample) int { return int(x.split.own() - y.split.own()) })
	b.say("%s, own share of the median boot, by what it lies between, ms:", s.of.title)
	for _, g := range boots[len(boots)/2].split.gaps() {
		if ms := g.to.Sub(g.from).Seconds() * 1000; ms >= 0.5 {
			b.say("  %6.1f  %s", ms, g.what)
		}
	}
}

// machine describes where this ran.
func machine() string {
	model, kernel := "unknown CPU", "?"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = string(bytes.TrimSpace(text))
	}
	return fmt.Sprintf("%s, %d x %s, Linux %s, load %s", time.Now().UTC().Format(time.RFC3339), runtime.NumCPU(), model, kernel, load())
}
