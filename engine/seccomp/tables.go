package seccomp

import (
	_ "embed" // the tables
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed syscalls.txt
var syscallsText string

// table is syscalls.txt: name to number by column, -1 for none. The result is
// shared and must not be changed. The text is our own and checked by a test.
var table = sync.OnceValue(func() map[string][3]int64 {
	t := map[string][3]int64{}
	for line := range strings.Lines(syscallsText) {
		f := strings.Fields(line)
		if len(f) != 4 || f[0] == "#" {
			continue
		}
		var numbers [3]int64
		for i, s := range f[1:] {
			n, err := strconv.ParseInt(s, 10, 32)
			if err != nil {
				n = -1
			}
			numbers[i] = n
		}
		t[f[0]] = numbers
	}
	return t
})

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
func Names() []string { return slices.Sorted(maps.Keys(table())) }
