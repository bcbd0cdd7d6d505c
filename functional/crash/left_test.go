//go:build functional

package crash

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// permanent are the files of an engine that stay when nothing else does.
var permanent = []string{"gantry.db", "journal", "engine.sock", "engine.sock.lock", "keeper.sock", "keeper.sock.lock", "keeper.sock.guard", "keeper.sock.start", "keeper.log", "keeper.pid", "view.log", "view.lock", "view.start", "view.command", "snapshots/backend", "snapshots/skeleton/dev", "snapshots/skeleton/proc", "snapshots/skeleton/sys"}

// things are what the host has of the engine: mounts, control groups, and files
// below its root but those that always are there. Layers count as one each.
func (h *host) things(t testing.TB) []string {
	t.Helper()
	out := append(h.mounts(t), h.groups(t)...)
	err := filepath.WalkDir(h.root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, h.root), "/")
		depth := strings.Count(name, "/")
		switch {
		case name == "view": // it comes and goes with the service
			return fs.SkipDir
		case d.IsDir() && depth == 0, slices.Contains(permanent, name):
			return nil
		case d.IsDir() && depth == 1 && strings.HasPrefix(name, "snapshots/"), d.IsDir() && strings.HasPrefix(name, "content/"):
			return nil // what they hold counts
		case d.IsDir():
			out = append(out, "file "+name)
			return fs.SkipDir
		}
		if log, times := strings.CutSuffix(name, ".times"); times && slices.Contains(out, "file "+log) {
			return nil // it comes with the second word
		}
		out = append(out, "file "+name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func (h *host) mounts(t testing.TB) (out []string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], h.root+"/") && f[4] != h.root+"/view" {
			out = append(out, "mount "+f[4])
		}
	}
	return out
}

// trees are the roots of the engine's control groups.
func (h *host) trees() []string {
	all, err := filepath.Glob("/sys/fs/cgroup/*/" + h.group)
	if err != nil {
		panic(err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/" + h.group); err == nil {
		all = append(all, "/sys/fs/cgroup/"+h.group)
	}
	return all
}

func (h *host) groups(t testing.TB) (out []string) {
	t.Helper()
	for _, tree := range h.trees() {
		entries, err := os.ReadDir(tree)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				out = append(out, "control group "+filepath.Join(tree, e.Name()))
			}
		}
	}
	return out
}

// removeGroups ends what a failed test has left running.
func (h *host) removeGroups(t testing.TB) {
	for _, tree := range h.trees() {
		until(t, patience, "control groups are removed", func() bool {
			_ = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.Name() == "cgroup.procs" {
					data, _ := os.ReadFile(path)
					for text := range strings.FieldsSeq(string(data)) {
						if pid, err := strconv.Atoi(text); err == nil && pid > 1 {
							_ = unix.Kill(pid, unix.SIGKILL)
						}
					}
				}
				if err == nil && d.Name() == "freezer.state" {
					_ = os.WriteFile(path, []byte("THAWED"), 0)
				}
				return nil
			})
			entries, _ := os.ReadDir(tree)
			for _, e := range entries {
				if e.IsDir() {
					_ = os.Remove(filepath.Join(tree, e.Name()))
				}
			}
			err := os.Remove(tree)
			return err == nil || errors.Is(err, fs.ErrNotExist)
		})
	}
}

func (h *host) removeMounts(t testing.TB) {
	all := h.mounts(t)
	for i := len(all) - 1; i >= 0; i-- {
		_ = unix.Unmount(strings.TrimPrefix(all[i], "mount "), unix.MNT_DETACH)
	}
	_ = unix.Unmount(h.root+"/view", unix.MNT_DETACH)
}

// mentioning lists the processes whose command line has one of the words, but
// for this one.
func mentioning(t testing.TB, words ...string) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		data, err := os.ReadFile(file)
		if err != nil || strings.HasPrefix(file, "/proc/"+strconv.Itoa(os.Getpid())+"/") {
			continue // it has ended
		}
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(string(data), w) }) {
			out = append(out, file+": "+strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return out
}

// descriptors counts those of a process.
func descriptors(t testing.TB, pid int) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
