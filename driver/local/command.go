package local

import (
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// splitCommand splits a command line at blanks, with single and double quotes
// and backslash as a shell has them, and without any expansion.
func splitCommand(line string) ([]string, error) {
	var (
		args  []string
		word  strings.Builder
		in    bool
		quote rune
	)
	if strings.ContainsRune(line, 0) {
		return nil, fmt.Errorf("a zero byte: %w", errdefs.ErrInvalid)
	}
	runes := []rune(line)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case r == '\\' && quote != '\'':
			if i++; i == len(runes) {
				return nil, fmt.Errorf("a backslash at the end: %w", errdefs.ErrInvalid)
			}
			word.WriteRune(runes[i])
			in = true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if in {
				args = append(args, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("an open quote: %w", errdefs.ErrInvalid)
	}
	if in {
		args = append(args, word.String())
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("no word: %w", errdefs.ErrInvalid)
	}
	return args, nil
}
