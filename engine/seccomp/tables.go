package seccomp

import (
	"fmt"
	"slices"
	"strings"
)

// find returns the index of a call in calls.
func find(name string) (int, bool) {
	return slices.BinarySearchFunc(calls[:], name, func(c call, name string) int { return strings.Compare(c.name, name) })
}

// sections reads a profile's text: lines of names below headings in brackets,
// and comments.
func sections(text string) (map[string][]string, error) {
	out := map[string][]string{}
	heading := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			heading = line[1 : len(line)-1]
			if _, ok := out[heading]; ok {
				return nil, fmt.Errorf("profile: section %q twice", heading)
			}
			out[heading] = nil
		case heading == "":
			return nil, fmt.Errorf("profile: line %q before the first section", line)
		default:
			out[heading] = append(out[heading], strings.Fields(line)...)
		}
	}
	return out, nil
}

// Names returns the names of all calls that the tables know, of any
// convention, sorted.
func Names() []string {
	names := make([]string, len(calls))
	for i := range calls {
		names[i] = calls[i].name
	}
	return names
}
