//go:build functional

package differential

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// TestAnswersAreThoseOfARealOpenStack asks the control plane of the functional
// tests, which gets a compute host, and a gantry cloud that it starts.
// REAL_AUTH_URL and CLOUD_STATE name others that run already.
func TestAnswersAreThoseOfARealOpenStack(t *testing.T) {
	ctx := t.Context()
	real, err := openReal(t)
	if err != nil {
		t.Fatal(err)
	}
	state := os.Getenv("CLOUD_STATE")
	if state == "" {
		state = cloudtest.Boot(t, filepath.Join(t.TempDir(), "state")).State
	}
	ours, err := openOurs(t, state)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*.calls")
	if err != nil || len(files) == 0 {
		t.Fatalf("no lists: %v", err)
	}
	accepted, ran := readAccepted(t), 0
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".calls"), func(t *testing.T) {
			ran++
			calls, err := parse(file)
			if err != nil {
				t.Fatal(err)
			}
			real.forget()
			ours.forget()
			for _, q := range calls {
				a, err := real.do(ctx, q)
				if err != nil {
					t.Fatal(err)
				}
				b, err := ours.do(ctx, q)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range differences(q, a, b, newNormal(real), newNormal(ours)) {
					if !accepted.has(q, d) {
						t.Errorf("%s:%d: %s\n\t%s", filepath.Base(file), q.line, q.name(), d)
					}
				}
			}
		})
	}
	if ran == len(files) {
		accepted.unused(t)
	}
}

// openReal logs in to the real OpenStack, once it has a compute host.
func openReal(t *testing.T) (*cloud, error) {
	t.Helper()
	url, password := os.Getenv("REAL_AUTH_URL"), os.Getenv("REAL_PASSWORD")
	if url == "" {
		url, password = os.Getenv("OS_AUTH_URL"), os.Getenv("OS_PASSWORD")
		startCompute(t)
	}
	return open(t.Context(), "real", url, map[string]account{"admin": {"admin", "admin", password}, "demo": {"demo", "demo", password}})
}

// startCompute starts gantry compute as a host of the real OpenStack, to the end
// of the test.
func startCompute(t *testing.T) {
	t.Helper()
	state := os.Getenv("GANTRY_CONTROLPLANE")
	etc := filepath.Join(state, "etc", "nova")
	cmd := exec.Command(os.Getenv("GANTRY_BINARY"), "compute", "--config-file", filepath.Join(etc, "common.conf"), "--config-file", filepath.Join(etc, "gantry.conf"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("gantry compute ended: %v", err)
		}
		cloudtest.EndKeeper(t, filepath.Join(state, "gantry", "engine"))
	})
	if out, err := exec.CommandContext(t.Context(), filepath.Join("..", "controlplane", "wait-compute"), "gantry-1").CombinedOutput(); err != nil {
		t.Fatalf("the real OpenStack has no compute host: %v: %s", err, out)
	}
}

// openOurs logs in with the openrc files of gantry cloud.
func openOurs(t *testing.T, state string) (*cloud, error) {
	t.Helper()
	accounts, url := map[string]account{}, ""
	for _, who := range []string{"admin", "demo"} {
		text, err := os.ReadFile(filepath.Join(state, "openrc-"+who))
		if err != nil {
			return nil, err
		}
		set := map[string]string{}
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "="); ok {
				set[name] = value
			}
		}
		url = set["OS_AUTH_URL"]
		accounts[who] = account{set["OS_USERNAME"], set["OS_PROJECT_NAME"], set["OS_PASSWORD"]}
	}
	return open(t.Context(), "embedded", url, accounts)
}

// acceptance is the differences that are meant: each line of accepted.txt is
// CALL | WHERE | reason, with "*" for any text in CALL and WHERE. One that begins
// with "? " depends on what the other cloud was used for before.
type acceptance struct {
	lines []string
	used  map[string]bool
}

func readAccepted(t *testing.T) *acceptance {
	t.Helper()
	text, err := os.ReadFile("testdata/accepted.txt")
	if err != nil {
		t.Fatal(err)
	}
	a := &acceptance{used: map[string]bool{}}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			if strings.Count(line, " | ") != 2 {
				t.Fatalf("accepted.txt: %q", line)
			}
			a.lines = append(a.lines, line)
		}
	}
	return a
}

func (a *acceptance) has(q *call, difference string) bool {
	where, _, _ := strings.Cut(difference, ": ")
	i := slices.IndexFunc(a.lines, func(line string) bool {
		parts := strings.Split(strings.TrimPrefix(line, "? "), " | ")
		return globbed(parts[0], q.name()) && globbed(parts[1], where)
	})
	if i < 0 {
		return false
	}
	a.used[a.lines[i]] = true
	return true
}

func (a *acceptance) unused(t *testing.T) {
	t.Helper()
	for _, line := range a.lines {
		if !a.used[line] && !strings.HasPrefix(line, "? ") {
			t.Errorf("accepted.txt: there is no such difference (any more): %s", line)
		}
	}
}

// globbed matches a text with a pattern in which "*" is any text.
func globbed(pattern, text string) bool {
	first, rest, more := strings.Cut(pattern, "*")
	if !strings.HasPrefix(text, first) {
		return false
	}
	text = text[len(first):]
	if !more {
		return text == ""
	}
	for i := range len(text) + 1 {
		if globbed(rest, text[i:]) {
			return true
		}
	}
	return false
}
