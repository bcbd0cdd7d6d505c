package linux

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const calmChild = "GANTRY_TEST_CALM"

// TestCalmChild calms itself. It does nothing of its own accord.
func TestCalmChild(t *testing.T) {
	if os.Getenv(calmChild) == "" {
		return
	}
	if err := CalmMonitor(); err != nil {
		t.Fatal(err)
	}
	slack := map[string]int{}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range threads {
		text, err := os.ReadFile("/proc/" + e.Name() + "/timerslack_ns")
		if err != nil {
			t.Fatal(err)
		}
		slack[strings.TrimSpace(string(text))]++
	}
	if slack[monitorSlack] != 1 || len(slack) < 2 {
		t.Errorf("threads by their slack: %v", slack)
	}
}

// TestCalmMonitor: one thread gets the slack, and the others do not.
func TestCalmMonitor(t *testing.T) {
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCalmChild$")
	child.Env = append(os.Environ(), calmChild+"=1")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
