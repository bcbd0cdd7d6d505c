package compute_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/conductor/conductortest"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var update = flag.Bool("update", false, "write testdata/sequence anew")

// Our calls to the conductor are those of testdata/sequence, and no more than
// a stock nova-compute makes.
func TestSequence(t *testing.T) {
	tests := []struct {
		name string
		run  func(*rig) *objects.Object
	}{
		{"create", func(r *rig) *objects.Object { return r.active() }},
		{"create-fails", func(r *rig) *objects.Object {
			inst := r.instance()
			r.tracker.err = errdefs.ErrExhausted
			r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
			r.wait("build_instances", func() bool { return r.find("build_instances") >= 0 })
			return inst
		}},
		{"stop", verbOf("", "powering-off", "stop_instance", nil)},
		{"start", verbOf("stop_instance", "powering-on", "start_instance", nil)},
		{"reboot-soft", verbOf("", "rebooting", "reboot_instance", map[string]any{"reboot_type": "SOFT"})},
		{"reboot-hard", verbOf("", "rebooting_hard", "reboot_instance", map[string]any{"reboot_type": "HARD"})},
		{"pause", verbOf("", "pausing", "pause_instance", nil)},
		{"unpause", verbOf("pause_instance", "unpausing", "unpause_instance", nil)},
		{"snapshot", verbOf("", "image_snapshot_pending", "snapshot_instance", map[string]any{"image_id": "img-1"})},
		{"rebuild", verbOf("", "rebuilding", "rebuild_instance", map[string]any{"image_ref": "new", "recreate": false})},
		{"shelve", verbOf("", "shelving", "shelve_instance", map[string]any{"image_id": "img-1"})},
		{"unshelve", func(r *rig) *objects.Object {
			inst := r.shelved()
			r.wait("the scheduler to be told", func() bool { return r.find("delete_instance_info") >= 0 })
			r.db.ResetCalls()
			r.unshelve(inst, nil)
			return inst
		}},
		{"delete", verbOf("", "deleting", "terminate_instance", nil)},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, noWait)
			r.images.add("img-1")
			r.images.serve(driver.Image{ID: "new", DiskFormat: "raw"})
			inst := tc.run(r)
			r.settled(inst)
			got := sequence(r.db.Calls())
			compareGolden(t, filepath.Join("testdata", "sequence", tc.name+".txt"), got)
			stock, err := os.ReadFile(filepath.Join("testdata", "sequence", tc.name+".stock.txt"))
			if err != nil {
				t.Fatal(err)
			}
			if n, most := len(got), len(comparable(strings.Fields(strings.ReplaceAll(string(stock), " expect ", "|expect|")))); n > most {
				t.Errorf("%d calls, stock makes %d", n, most)
			}
		})
	}
}

// verbOf returns a run of one verb on an active instance, after another verb.
func verbOf(before, task, method string, args map[string]any) func(*rig) *objects.Object {
	return func(r *rig) *objects.Object {
		inst := r.active()
		switch before {
		case "stop_instance":
			r.ask(inst, "stop", "powering-off", before, nil)
			r.waitState(inst, "stopped")
		case "pause_instance":
			r.ask(inst, "pause", "pausing", before, nil)
			r.waitState(inst, "paused")
		}
		r.wait("the scheduler to be told", func() bool { return r.find("update_instance_info") >= 0 })
		n := len(r.db.Events(inst.String("uuid")))
		r.db.ResetCalls()
		r.ask(inst, method, task, method, args)
		r.wait("the event", func() bool { return len(r.db.Events(inst.String("uuid"))) > n })
		return inst
	}
}

// sequence renders calls as the stock files have them, casts last: they have no
// order among the calls.
func sequence(calls []conductortest.Call) []string {
	var out, casts []string
	for _, c := range calls {
		if strings.HasSuffix(c.Method, "_instance_info") {
			continue
		}
		if c.Method == "build_instances" {
			casts = append(casts, c.Method)
			continue
		}
		line := c.Method
		switch {
		case strings.Contains(line, ".event_"):
			line = c.String()
		case c.Method == "Instance.save":
			var fields []string
			for _, f := range c.Changes {
				if f == "vm_state" || f == "task_state" {
					f += "=" + orNull(c.Object.String(f))
				}
				fields = append(fields, f)
			}
			line += "{" + strings.Join(fields, ",") + "}"
		}
		for _, what := range []string{"expected_vm_state", "expected_task_state"} {
			if states, ok := c.Kwargs[what].([]any); ok {
				var texts []string
				for _, s := range states {
					text, _ := s.(string)
					texts = append(texts, orNull(text))
				}
				line += " expect " + strings.Join(texts, ",")
			}
		}
		out = append(out, line)
	}
	return append(out, casts...)
}

func orNull(s string) string {
	if s == "" {
		return "null"
	}
	return s
}

// comparable leaves out what the tracker, the ports and the scheduler's
// messages are responsible for.
func comparable(lines []string) []string {
	return slices.DeleteFunc(lines, func(l string) bool {
		for _, p := range []string{"ComputeNode.", "Service.", "ResourceList.", "InstanceInfoCache.", "VirtualInterface.", "update_instance_info", "delete_instance_info"} {
			if strings.HasPrefix(l, p) {
				return true
			}
		}
		return false
	})
}

func compareGolden(t *testing.T, name string, got []string) {
	t.Helper()
	text := strings.Join(got, "\n") + "\n"
	if *update {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("calls differ from %s:\n%s", name, diff(string(want), text))
	}
}

func diff(want, got string) string { return fmt.Sprintf("want:\n%s\ngot:\n%s", want, got) }
