package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Chdir("../../..")
	dir := t.TempDir()
	results, out := filepath.Join(dir, "results"), filepath.Join(dir, "out.md")
	line := `{"Action":"pass","Package":"github.com/gantry-project/gantry/functional","Test":"TestFunctionalHostIsUp"}` + "\n"
	if err := os.WriteFile(results, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-results", results, results, "-write", out}, nil); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(out)
	if err != nil || !strings.Contains(string(raw), "shows the host up | green |") {
		t.Errorf("%v\n%s", err, raw)
	}
	for _, bad := range [][]string{{"x"}, {"-write", "a", "b"}, {"-results", filepath.Join(dir, "absent")}} {
		if err := run(bad, &strings.Builder{}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	var b strings.Builder
	if err := run(nil, &b); err != nil || !strings.HasPrefix(b.String(), "# Support matrix") {
		t.Errorf("%v\n%s", err, b.String())
	}
}
