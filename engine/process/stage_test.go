package process_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/process/processtest"
	"golang.org/x/sys/unix"
)

// setUpMounts starts a process and returns what it saw mounted before its root
// was entered.
func setUpMounts(t *testing.T, r process.Runner, f processtest.Fixture) string {
	t.Helper()
	seen := filepath.Join(t.TempDir(), "mounts")
	spec := f.Spec(t, "true")
	spec.Hooks.State = func(status string, pid int) []byte {
		text, _ := json.Marshal(map[string]any{"status": status, "pid": pid})
		return text
	}
	const script = `read state; pid=${state#*pid\":}; cat /proc/${pid%%,*}/mountinfo >$SEEN`
	spec.Hooks.Prestart = []process.Hook{{
		Path: "/bin/busybox", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin", "SEEN=" + seen},
	}}
	if _, err := r.Start(t.Context(), "x", spec); err != nil {
		t.Fatal(err)
	}
	processtest.Reap(t, r, "x")
	text, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What a start costs does not depend on what is mounted on the host.
func TestStageHasNothingOfTheHost(t *testing.T) {
	f := processtest.NewFixture(t)
	staged, plain := newLocalWith(t, process.Options{Resident: true}), newLocal(t)
	before := strings.Count(setUpMounts(t, staged, f), "\n")
	host := t.TempDir()
	for i := range 40 {
		dir := filepath.Join(host, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	text := setUpMounts(t, staged, f)
	if after := strings.Count(text, "\n"); after != before || strings.Contains(text, host) {
		t.Errorf("%d mounts, %d before the host had more:\n%s", after, before, text)
	}
	if text := setUpMounts(t, plain, f); strings.Count(text, host) != 40 {
		t.Errorf("without a stage:\n%s", text)
	}
}

// Containers share the directory that masks others and the nodes of /dev, but
// nobody can change them, not even with the right to mount.
func TestSharedStageIsReadOnly(t *testing.T) {
	f := processtest.NewFixture(t)
	r := newLocalWith(t, process.Options{Resident: true})
	const script = `for d in /proc/acpi /sys/firmware /sys/fs/cgroup; do test -d $d || continue
mount -o remount,bind,rw $d; touch $d/x && echo "wrote $d"; ls -A $d; done
chmod 600 /dev/null && echo chmod; busybox chown 0 /dev/null && echo chown; touch /dev/null && echo touch
echo x >/dev/null && busybox head -c 3 /dev/zero | busybox wc -c; stat -c %t:%T:%a /dev/null`
	spec := f.Spec(t, "sh", "-c", script)
	spec.Terminal, spec.ConsoleLog = true, filepath.Join(t.TempDir(), "log")
	spec.ConsoleLimit = 1 << 20
	spec.Capabilities = append(spec.Capabilities, "CAP_SYS_ADMIN", "CAP_FOWNER", "CAP_DAC_OVERRIDE")
	if _, err := r.Start(t.Context(), "x", spec); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Wait(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	processtest.Reap(t, r, "x")
	out, err := conlog.Tail(spec.ConsoleLog, 0, 0)
	if err != nil || strings.Contains(string(out), "wrote") || !strings.HasSuffix(string(out), "\n3\n1:3:666\n") {
		t.Errorf("%s, %v", out, err)
	}
	for _, word := range []string{"\nchmod\n", "\nchown\n", "\ntouch\n"} {
		if strings.Contains("\n"+string(out), word) {
			t.Errorf("allowed:%s%s", word, out)
		}
	}
}
