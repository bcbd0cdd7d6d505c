// Package metricstest reads the text format of Prometheus, and refuses whatever
// its description does not allow. For tests.
package metricstest

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Family is one metric.
type Family struct {
	Help, Type string
	// Samples are the values by the rest of their names and their labels as
	// written: "_count{method=\"x\"}".
	Samples map[string]float64
}

var (
	comment = regexp.MustCompile(`^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$`)
	sample  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? (\S+)$`)
	labels  = regexp.MustCompile(`^\{([a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",)*[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"\}$`)
	bound   = regexp.MustCompile(`,?le="([^"]*)"`)
)

// parser is one pass over a text.
type parser struct {
	families map[string]*Family
	current  string
	last     map[string]bucket // of histograms, by their other labels
}

type bucket struct{ le, count float64 }

// Parse reads a whole answer. Each family has help, type and samples together, no
// sample is there twice, and buckets of histograms ascend and end with the count.
func Parse(text string) (map[string]*Family, error) {
	p := &parser{families: map[string]*Family{}, last: map[string]bucket{}}
	if text != "" && !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("the last line does not end")
	}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("line %d %q: %w", i+1, line, err)
		}
	}
	for key, b := range p.last {
		if !math.IsInf(b.le, 1) {
			return nil, fmt.Errorf("%s has no bucket for all", key)
		}
	}
	return p.families, nil
}

func (p *parser) line(line string) error {
	if m := comment.FindStringSubmatch(line); m != nil {
		return p.comment(m[1], m[2], m[3])
	}
	m := sample.FindStringSubmatch(line)
	if m == nil || m[2] != "" && !labels.MatchString(m[2]) {
		return fmt.Errorf("not of the format")
	}
	f := p.families[p.current]
	suffix, ours := strings.CutPrefix(m[1], p.current)
	if f == nil || f.Type == "" || !ours {
		return fmt.Errorf("not of the family %s", p.current)
	}
	v, err := strconv.ParseFloat(m[3], 64)
	if err != nil {
		return err
	}
	if _, twice := f.Samples[suffix+m[2]]; twice {
		return fmt.Errorf("twice")
	}
	f.Samples[suffix+m[2]] = v
	if f.Type != "histogram" {
		if suffix != "" || f.Type == "counter" && v < 0 {
			return fmt.Errorf("no sample of a %s", f.Type)
		}
		return nil
	}
	return p.histogram(suffix, m[2], v)
}

func (p *parser) comment(what, name, rest string) error {
	f := p.families[name]
	switch {
	case what == "HELP" && f != nil:
		return fmt.Errorf("a family twice")
	case what == "HELP":
		p.families[name], p.current = &Family{Help: rest, Samples: map[string]float64{}}, name
	case f == nil || name != p.current || f.Type != "" || len(f.Samples) > 0:
		return fmt.Errorf("a type out of place")
	case rest != "counter" && rest != "gauge" && rest != "histogram":
		return fmt.Errorf("no type")
	default:
		f.Type = rest
	}
	return nil
}

func (p *parser) histogram(suffix, labels string, v float64) error {
	switch suffix {
	case "_bucket":
		m := bound.FindStringSubmatch(labels)
		if m == nil {
			return fmt.Errorf("a bucket without a bound")
		}
		le, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		key := p.current + strings.Replace(bound.ReplaceAllString(labels, ""), "{}", "", 1)
		if before, some := p.last[key]; some && (before.le >= le || before.count > v) {
			return fmt.Errorf("buckets do not ascend")
		}
		p.last[key] = bucket{le, v}
	case "_count":
		if b, some := p.last[p.current+labels]; !some || b.count != v {
			return fmt.Errorf("the count is not that of the last bucket")
		}
	case "_sum":
	default:
		return fmt.Errorf("no sample of a histogram")
	}
	return nil
}
