//go:build functional

package differential

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// sortedByLength yields the longest names first.
func sortedByLength(m map[string]string) iter.Seq2[string, string] {
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return len(b) - len(a) })
	return func(yield func(string, string) bool) {
		for _, n := range names {
			if !yield(n, m[n]) {
				return
			}
		}
	}
}

var (
	uuids     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b`)
	times     = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?`)
	links     = regexp.MustCompile(`https?://[^/"\s]+(/(identity|compute|image|network|placement)\b)?`)
	macs      = regexp.MustCompile(`fa:16:3e(:[0-9a-f]{2}){3}`)
	prints    = regexp.MustCompile(`([0-9a-f]{2}:){15}[0-9a-f]{2}`)
	mounted   = regexp.MustCompile(`^/(identity|compute|image|network|placement)/`)
	generated = regexp.MustCompile(`^(ssh-(rsa|ed25519) |-----BEGIN)`)
)

// normal makes answers of one cloud comparable: values that were kept become
// their names, other ids, times and hosts what they are.
type normal struct{ names map[string]string }

func newNormal(c *cloud) *normal {
	n := &normal{names: map[string]string{}}
	for name, value := range c.vars {
		if len(value) > 6 { // not the number of an aggregate
			n.names[value] = "<" + name + ">"
		}
	}
	return n
}

// unordered are the lists whose order says nothing.
var unordered = []string{"catalog", "endpoints", "roles", "traits", "methods", "tags", "security_group_rules"}

func (n *normal) text(s string) string {
	for value, name := range sortedByLength(n.names) {
		s = strings.ReplaceAll(s, value, name)
	}
	s = links.ReplaceAllString(s, "<url>")
	s = mounted.ReplaceAllString(s, "/")
	s = times.ReplaceAllStringFunc(s, func(t string) string {
		form := regexp.MustCompile(`\d`).ReplaceAllString(t, "0")
		if i := strings.IndexByte(form, '.'); i >= 0 {
			form = form[:i] + ".0" + strings.TrimLeft(form[i+1:], "0")
		}
		return "<" + form + ">"
	})
	s = uuids.ReplaceAllString(s, "<id>")
	// the rest quotes the schema of the real service
	s, _, _ = strings.Cut(s, "Failed validating")
	s = strings.TrimRight(s, " \n")
	s = macs.ReplaceAllString(s, "<mac>")
	s = prints.ReplaceAllString(s, "<fingerprint>")
	if generated.MatchString(s) {
		return "<key>"
	}
	return s
}

// plain normalises a body that is no JSON: white space says nothing there.
func (n *normal) plain(body []byte) string {
	return strings.Join(strings.Fields(n.text(string(body))), " ")
}

// value normalises a body.
func (n *normal) value(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			inner := n.value(v[k])
			if list, ok := inner.([]any); ok && slices.Contains(unordered, k) {
				slices.SortFunc(list, func(a, b any) int { return strings.Compare(short(a), short(b)) })
			}
			out[n.text(k)] = inner
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = n.value(v[i])
		}
		return out
	case string:
		return n.text(v)
	}
	return v
}

// headers are those that clients look at.
var headers = []string{"Content-Type", "Location", "Allow", "Openstack-Api-Version", "X-Openstack-Nova-Api-Version", "Www-Authenticate"}

// differences lists where two answers differ: "status: 200, 404".
func differences(q *call, real, ours *reply, nr, no *normal) []string {
	var out []string
	say := func(where string, a, b any) { out = append(out, fmt.Sprintf("%s: %v, %v", where, a, b)) }
	if real.status != ours.status {
		say("status", real.status, ours.status)
	}
	if q.statusOnly {
		return out
	}
	for _, h := range headers {
		a, b := nr.text(real.header.Get(h)), no.text(ours.header.Get(h))
		if !strings.EqualFold(strings.ReplaceAll(a, " ", ""), strings.ReplaceAll(b, " ", "")) {
			say("header "+h, a, b)
		}
	}
	if (real.header.Get("X-Openstack-Request-Id") == "") != (ours.header.Get("X-Openstack-Request-Id") == "") {
		say("header X-Openstack-Request-Id", real.header.Get("X-Openstack-Request-Id"), ours.header.Get("X-Openstack-Request-Id"))
	}
	if real.body == nil && ours.body == nil {
		if a, b := nr.plain(real.raw), no.plain(ours.raw); a != b {
			say("body", a, b)
		}
		return out
	}
	compare("", nr.value(real.body), no.value(ours.body), q.ignore, say)
	return out
}

// compare walks two bodies.
func compare(at string, a, b any, ignore []string, say func(string, any, any)) {
	for _, i := range ignore {
		if matched(i, at) {
			return
		}
	}
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		keys := map[string]bool{}
		for k := range x {
			keys[k] = true
		}
		for k := range y {
			keys[k] = true
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			va, ina := x[k]
			vb, inb := y[k]
			here := strings.TrimPrefix(at+"."+k, ".")
			switch {
			case !ina:
				compare(here, "<absent>", vb, ignore, say)
			case !inb:
				compare(here, va, "<absent>", ignore, say)
			default:
				compare(here, va, vb, ignore, say)
			}
		}
		return
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			break
		}
		for i := range x {
			compare(fmt.Sprintf("%s.%d", at, i), x[i], y[i], ignore, say)
		}
		return
	}
	if ta, tb := short(a), short(b); ta != tb {
		say(at, ta, tb)
	}
}

// matched compares a path with a pattern whose parts may be "*".
func matched(pattern, path string) bool {
	p, q := strings.Split(pattern, "."), strings.Split(path, ".")
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i] != "*" && p[i] != q[i] {
			return false
		}
	}
	return true
}

func short(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(text) > 600 {
		return string(text[:600]) + "..."
	}
	return string(text)
}
