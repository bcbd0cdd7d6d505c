// Package metrics counts what a service does and shows it in the text format of
// Prometheus, version 0.0.4. It has the three things that gantry needs (counters,
// histograms, and gauges that are read when somebody asks) and nothing else:
// docs/dependencies.md says why there is no library. A leaf.
package metrics

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Registry holds the families of one service. Families are added before it is
// read; everything else may be called at any time from any goroutine. Names of
// families and labels are constants of the program and are not checked; values
// of labels may be any text.
type Registry struct{ families []family }

// family is one metric with all its series.
type family interface {
	write(ctx context.Context, b *bytes.Buffer)
}

// head is what all families have.
type head struct {
	name, help, kind string
	labels           []string
}

func (h head) title(b *bytes.Buffer) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", h.name, escape(h.help, false), h.name, h.kind)
}

// sample writes one line. extra is a further label, or nothing.
func (h head) sample(b *bytes.Buffer, suffix string, values []string, extra, extraValue string, v float64) {
	b.WriteString(h.name + suffix)
	sep := byte('{')
	put := func(name, value string) {
		b.WriteByte(sep)
		sep = ','
		b.WriteString(name + `="` + escape(value, true) + `"`)
	}
	for i, name := range h.labels {
		put(name, values[i])
	}
	if extra != "" {
		put(extra, extraValue)
	}
	if sep == ',' {
		b.WriteByte('}')
	}
	b.WriteString(" " + number(v) + "\n")
}

func escape(text string, quoted bool) string {
	text = strings.ReplaceAll(strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), `\`, `\\`), "\n", `\n`)
	if quoted {
		text = strings.ReplaceAll(text, `"`, `\"`)
	}
	return text
}

func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// series are values by those of their labels.
type series[T any] struct {
	mu sync.Mutex
	m  map[string]*T // guarded by mu
}

// between stands between the values of labels in a key; no label of ours has it.
const between = "\xff"

// change calls fn for the series of those values, which is made if it is new.
func (s *series[T]) change(values []string, fn func(*T)) {
	key := strings.Join(values, between)
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.m[key]
	if x == nil {
		if s.m == nil {
			s.m = map[string]*T{}
		}
		x = new(T)
		s.m[key] = x
	}
	fn(x)
}

// each calls fn for all series in the order of their values.
func (s *series[T]) each(fn func(values []string, x *T)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(s.m)) {
		fn(strings.Split(key, between), s.m[key])
	}
}

// Counter only grows. The nil Counter counts nothing.
type Counter struct {
	head
	series[float64]
}

// Counter adds a family. One without labels is there from the beginning, with 0.
func (r *Registry) Counter(name, help string, labels ...string) *Counter {
	c := &Counter{head: head{name, help, "counter", labels}}
	if len(labels) == 0 {
		c.Add(0)
	}
	r.families = append(r.families, c)
	return c
}

// Add adds to the series with these values, one for each label.
func (c *Counter) Add(n float64, values ...string) {
	if c != nil {
		c.change(values, func(v *float64) { *v += n })
	}
}

func (c *Counter) write(_ context.Context, b *bytes.Buffer) {
	c.title(b)
	c.each(func(values []string, v *float64) { c.sample(b, "", values, "", "", *v) })
}

// Histogram counts values by bounds. The nil Histogram counts nothing.
type Histogram struct {
	head
	bounds []float64
	series[distribution]
}

type distribution struct {
	below []uint64 // by bounds, each without those before
	count uint64
	sum   float64
}

// Histogram adds a family; bounds ascend and are without the infinite one.
func (r *Registry) Histogram(name, help string, bounds []float64, labels ...string) *Histogram {
	h := &Histogram{head: head{name, help, "histogram", labels}, bounds: bounds}
	r.families = append(r.families, h)
	return h
}

// Observe counts a value in the series with these labels.
func (h *Histogram) Observe(v float64, values ...string) {
	if h == nil {
		return
	}
	h.change(values, func(d *distribution) {
		if d.below == nil {
			d.below = make([]uint64, len(h.bounds))
		}
		if i, _ := slices.BinarySearch(h.bounds, v); i < len(d.below) {
			d.below[i]++
		}
		d.count++
		d.sum += v
	})
}

func (h *Histogram) write(_ context.Context, b *bytes.Buffer) {
	h.title(b)
	h.each(func(values []string, d *distribution) {
		total := uint64(0)
		for i, bound := range h.bounds {
			total += d.below[i]
			h.sample(b, "_bucket", values, "le", number(bound), float64(total))
		}
		h.sample(b, "_bucket", values, "le", "+Inf", float64(d.count))
		h.sample(b, "_sum", values, "", "", d.sum)
		h.sample(b, "_count", values, "", "", float64(d.count))
	})
}

// Set gives the value of one series of a gauge, with one text for each label.
// Values that are given again are added.
type Set func(v float64, values ...string)

// gauge is read when somebody asks.
type gauge struct {
	head
	read func(ctx context.Context, set Set) error
}

// Gauge adds a family that read gives the values of, each time that they are
// asked for. What an error leaves out is not shown.
func (r *Registry) Gauge(name, help string, labels []string, read func(ctx context.Context, set Set) error) {
	r.families = append(r.families, &gauge{head{name, help, "gauge", labels}, read})
}

// CounterFunc is Gauge for what somebody else counts.
func (r *Registry) CounterFunc(name, help string, labels []string, read func(ctx context.Context, set Set) error) {
	r.families = append(r.families, &gauge{head{name, help, "counter", labels}, read})
}

func (g *gauge) write(ctx context.Context, b *bytes.Buffer) {
	var s series[float64]
	err := g.read(ctx, func(v float64, values ...string) { s.change(values, func(x *float64) { *x += v }) })
	g.title(b)
	if err != nil {
		return
	}
	s.each(func(values []string, v *float64) { g.sample(b, "", values, "", "", *v) })
}

// Write writes all families in the order in which they were added.
func (r *Registry) Write(ctx context.Context, w io.Writer) error {
	var b bytes.Buffer
	for _, f := range r.families {
		f.write(ctx, &b)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// ContentType of what Write writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// ServeHTTP implements http.Handler: GET answers with all families.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", ContentType)
	_ = r.Write(req.Context(), w) // who asked has gone
}
