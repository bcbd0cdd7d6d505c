package firewall

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// output runs a program that lists rules.
func output(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// restore runs a program that takes a table's changes.
func restore(ctx context.Context, program, text string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, append([]string{"--noflush"}, args...)...)
	cmd.Stdin = strings.NewReader(text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// script is the text of a restore.
type script struct{ strings.Builder }

func (s *script) add(words ...string) {
	s.WriteString(strings.Join(words, " "))
	s.WriteByte('\n')
}
