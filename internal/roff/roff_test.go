package roff_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/roff"
)

// nasty has what roff takes for something else.
const nasty = ".so /etc/passwd\n'br \\fBx \"quoted\" a-b ~ ^ ` …\n\n.\n\n\\"

func page() []byte {
	p := roff.New("a-page", "1", "it's one")
	p.Section("synopsis")
	p.Usage("a-page [--flag] 'x'")
	p.Sub("sub \"title\"")
	p.Text(nasty)
	p.Term("--opt", "VALUE", ".begins with a dot")
	p.Term("-x", "", "")
	p.Verbatim("[a]\n.b = c\n\nd\\e\n")
	return p.Bytes()
}

func TestTextIsNoRequest(t *testing.T) {
	for line := range strings.SplitSeq(string(page()), "\n") {
		if strings.HasPrefix(line, ".so") || strings.HasPrefix(line, "'") {
			t.Errorf("a request: %q", line)
		}
	}
}

// TestItRenders: man has no warnings, and shows what was meant.
func TestItRenders(t *testing.T) {
	cmd := exec.Command("man", "--warnings=w", "-E", "UTF-8", "-l", "-")
	cmd.Env = append(cmd.Environ(), "MANWIDTH=100", "LC_ALL=C.UTF-8", "MAN_DISABLE_SECCOMP=1")
	cmd.Stdin = strings.NewReader(string(page()))
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil || warnings.Len() > 0 {
		t.Fatalf("%v %s", err, warnings.String())
	}
	for _, want := range []string{
		"a-page - it's one", "a-page [--flag] 'x'", "sub \"title\"", ".so /etc/passwd", `'br \fBx "quoted" a-b ~ ^ ` + "` ...",
		"--opt VALUE", ".begins with a dot", "[a]\n", ".b = c\n", "d\\e",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
