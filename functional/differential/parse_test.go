//go:build functional

package differential

import (
	"fmt"
	"os"
	"strings"
)

// call is one request of a list.
//
// A list is a text file. An empty line or one that begins with # is a remark.
// All others are
//
//	WHO SERVICE[@VERSION] METHOD PATH [BODY]
//
// with WHO admin, demo or nobody, SERVICE a type of the catalog, VERSION a
// microversion, PATH below the endpoint ("/servers"; with a leading "//" below
// its host) and BODY JSON in the rest of the line, or @NAME for bytes that are no
// JSON: the text after it. Lines that begin with white space belong to the call
// above them:
//
//	set NAME PATH         keeps a value of the body: $NAME stands for it from then on
//	header NAME VALUE     sends a header
//	until PATH VALUE      repeats the call until the body has that value, or 60 s are over
//	status                compares the status and nothing else
//	ignore PATH           leaves a value of the body out
type call struct {
	file string
	line int

	who, service, version, method, path, body string
	raw                                       bool
	header                                    map[string]string
	set                                       map[string]string
	untilPath, untilValue                     string
	statusOnly                                bool
	ignore                                    []string
}

// name is how accepted differences name the call.
func (c *call) name() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s", c.who, c.service, c.method, c.path))
}

func parse(file string) ([]*call, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var calls []*call
	for i, line := range strings.Split(string(text), "\n") {
		if strings.TrimSpace(line) == "" || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(calls) == 0 {
				return nil, fmt.Errorf("%s:%d: nothing above it", file, i+1)
			}
			if err := calls[len(calls)-1].add(strings.TrimSpace(line)); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
			}
			continue
		}
		c := &call{file: file, line: i + 1, header: map[string]string{}, set: map[string]string{}}
		parts := strings.SplitN(line, " ", 5)
		if len(parts) < 4 {
			return nil, fmt.Errorf("%s:%d: WHO SERVICE METHOD PATH", file, i+1)
		}
		c.who, c.method, c.path = parts[0], parts[2], parts[3]
		c.service, c.version, _ = strings.Cut(parts[1], "@")
		if len(parts) == 5 {
			c.body = parts[4]
			if text, ok := strings.CutPrefix(c.body, "@"); ok {
				c.body, c.raw = text, true
			}
		}
		calls = append(calls, c)
	}
	return calls, nil
}

func (c *call) add(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	a, b, _ := strings.Cut(rest, " ")
	switch verb {
	case "set":
		c.set[a] = b
	case "header":
		c.header[a] = b
	case "until":
		c.untilPath, c.untilValue = a, b
	case "status":
		c.statusOnly = true
	case "ignore":
		c.ignore = append(c.ignore, a)
	default:
		return fmt.Errorf("%q is no directive", verb)
	}
	return nil
}
