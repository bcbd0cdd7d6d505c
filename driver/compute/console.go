package compute

import (
	"context"
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// getConsoleOutput returns text: all of it for a null length, ASCII with a
// question mark for everything else, as nova-compute does.
func (m *Manager) getConsoleOutput(ctx context.Context, o *op) (any, error) {
	c, ok := m.dep.Driver.(driver.ConsoleReader)
	if !ok {
		return nil, fmt.Errorf("console of %s: %w", o.uuid(), errdefs.ErrUnsupported)
	}
	var tail *lineCount
	if err := o.arg("tail_length", &tail); err != nil {
		return nil, err
	}
	lines := -1
	if tail != nil {
		lines = int(*tail)
	}
	out, err := c.ConsoleOutput(ctx, driver.InstanceUUID(o.uuid()), lines)
	if err != nil {
		return nil, fmt.Errorf("console of %s: %w", o.uuid(), err)
	}
	return ascii(tailOf(string(out), lines)), nil
}

// tailOf counts lines as nova-compute does (ComputeManager._tail_log): the text
// after the last newline is one too, empty or not. A negative count is all.
func tailOf(text string, lines int) string {
	if lines < 0 {
		return text
	}
	parts := strings.Split(text, "\n")
	return strings.Join(parts[max(len(parts)-lines, 0):], "\n")
}

// lineCount is a number that old clients send as text.
type lineCount int

// UnmarshalJSON reads 35 and "35". A negative count is all lines.
func (l *lineCount) UnmarshalJSON(raw []byte) error {
	var n int
	if _, err := fmt.Sscan(strings.Trim(string(raw), `"`), &n); err != nil {
		return fmt.Errorf("line count %q: %w", raw, errdefs.ErrInvalid)
	}
	*l = lineCount(max(n, -1))
	return nil
}

func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 {
			return r
		}
		return '?'
	}, s)
}
