package deb

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(cmd.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// programs are stand-ins for the real ones, which take long to build.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"gantry", "gantry-host", "gantry-runtime"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho \""+name+" $*\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// build makes a package; git need not know the tree, as in an archive of it.
func build(t *testing.T, bin string) string {
	t.Helper()
	return run(t, []string{"ARCH=arm64", "DEB_VERSION=1.2~rc1", "SOURCE_DATE_EPOCH=1700000000", "TMPDIR=" + t.TempDir()}, "./build", bin, t.TempDir())
}

func TestThePackage(t *testing.T) {
	bin := programs(t)
	deb := build(t, bin)
	if filepath.Base(deb) != "gantry_1.2~rc1_arm64.deb" {
		t.Errorf("its name is %s", deb)
	}
	for field, want := range map[string]string{"Package": "gantry", "Version": "1.2~rc1", "Architecture": "arm64"} {
		if got := run(t, nil, "dpkg-deb", "-f", deb, field); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	modes := map[string]string{}
	for line := range strings.Lines(run(t, nil, "dpkg-deb", "-c", deb)) {
		f := strings.Fields(line)
		if f[1] != "root/root" || f[3] != "2023-11-14" {
			t.Errorf("owner or time: %s", line)
		}
		modes[strings.TrimPrefix(f[5], ".")] = f[0]
	}
	for name, want := range map[string]string{
		"/usr/bin/gantry": "-rwxr-xr-x", "/usr/bin/gantry-host": "-rwxr-xr-x", "/usr/bin/gantry-runtime": "-rwxr-xr-x",
		"/etc/gantry/gantry.conf":                              "-rw-r-----",
		"/usr/lib/systemd/system/gantry-compute.service":       "-rw-r--r--",
		"/usr/lib/systemd/system/gantry-cloud.service":         "-rw-r--r--",
		"/usr/lib/tmpfiles.d/gantry.conf":                      "-rw-r--r--",
		"/usr/share/bash-completion/completions/gantry":        "-rw-r--r--",
		"/usr/share/zsh/vendor-completions/_gantry":            "-rw-r--r--",
		"/usr/share/fish/vendor_completions.d/gantry.fish":     "-rw-r--r--",
		"/usr/share/man/man1/gantry.1.gz":                      "-rw-r--r--",
		"/usr/share/man/man1/gantry-host.1.gz":                 "lrwxrwxrwx",
		"/usr/share/man/man5/gantry.conf.5.gz":                 "-rw-r--r--",
		"/usr/share/man/man8/gantry-runtime.8.gz":              "-rw-r--r--",
		"/usr/share/doc/gantry/copyright":                      "-rw-r--r--",
		"/usr/share/doc/gantry/changelog.Debian.gz":            "-rw-r--r--",
		"/usr/share/doc/gantry/docs/install-debian-package.md": "-rw-r--r--",
	} {
		if modes[name] != want {
			t.Errorf("%s: %q, want %q", name, modes[name], want)
		}
	}
	again := build(t, bin)
	first, err1 := os.ReadFile(deb)
	second, err2 := os.ReadFile(again)
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(first, second) {
		t.Errorf("two builds differ: %v", err)
	}
}

// TestWhatIsInstalled: what the units name is there, sums and conffiles agree,
// and completions are those of the native program.
func TestWhatIsInstalled(t *testing.T) {
	deb, dir := build(t, programs(t)), t.TempDir()
	run(t, nil, "dpkg-deb", "-R", deb, dir)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	for _, unit := range []string{"gantry-compute", "gantry-cloud"} {
		text := read("usr/lib/systemd/system/" + unit + ".service")
		if strings.Contains(text, "/usr/local") || strings.Contains(text, "nova.conf") {
			t.Errorf("%s is of another installation:\n%s", unit, text)
		}
		for _, want := range []string{"\nType=notify\n", "\nKillMode=process\n", "\nWatchdogSec=", "\nExecStart=/usr/bin/gantry "} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q", unit, want)
			}
		}
	}
	if got := read("DEBIAN/conffiles"); got != "/etc/gantry/gantry.conf\n" {
		t.Errorf("conffiles %q", got)
	}
	for shell, name := range map[string]string{
		"bash": "bash-completion/completions/gantry", "zsh": "zsh/vendor-completions/_gantry", "fish": "fish/vendor_completions.d/gantry.fish",
	} {
		if got := read("usr/share/" + name); got != "gantry-host completion "+shell+"\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
	sums := exec.Command("md5sum", "-c", "--quiet", "DEBIAN/md5sums")
	sums.Dir = dir
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("%v %s", err, out)
	}
}

// host is a directory in the place of a host's root, for the scripts.
type host struct {
	t   *testing.T
	dir string
}

// script runs one of the package's scripts on the host: its absolute paths are
// in the directory, its programs those of bin, then the machine's.
func (h host) script(name string, args ...string) (string, error) {
	h.t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		h.t.Fatal(err)
	}
	moved := string(text)
	for _, top := range []string{"/etc/gantry", "/var/lib/gantry", "/run/gantry", "/run/systemd/system"} {
		moved = strings.ReplaceAll(moved, top, h.dir+top)
	}
	cmd := exec.Command("sh", append([]string{"-c", moved, name}, args...)...)
	cmd.Env = append(cmd.Environ(), "PATH="+h.dir+"/bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h host) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o700)); err != nil {
		h.t.Fatal(err)
	}
}

func (h host) has(name string) bool {
	_, err := os.Lstat(filepath.Join(h.dir, name))
	return err == nil
}

// newHost has a systemd, whose calls are written down, and a gantry that says
// that these containers run.
func newHost(t *testing.T, containers string) host {
	t.Helper()
	h := host{t, t.TempDir()}
	record := "#!/bin/sh\necho \"$(basename $0) $*\" >>" + h.dir + "/calls\n"
	h.write("bin/systemctl", record+"case $* in *is-active*gantry-compute*) exit 0 ;; *is-active*) exit 3 ;; esac\n")
	h.write("bin/deb-systemd-invoke", record)
	h.write("bin/systemd-tmpfiles", record)
	h.write("bin/gantry", record+"[ \"$1\" != ps ] || printf 'CONTAINER\\n"+containers+"'\n")
	h.write("run/systemd/system/x", "")
	h.write("var/lib/gantry/engine/gantry.db", "")
	h.write("etc/gantry/gantry.conf", "")
	return h
}

func (h host) calls() string {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, "calls"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	return string(text)
}

func (h host) must(name string, args ...string) {
	h.t.Helper()
	if out, err := h.script(name, args...); err != nil {
		h.t.Fatalf("%s %q: %v %s", name, args, err, out)
	}
}

func TestInstallationStartsNothing(t *testing.T) {
	h := newHost(t, "")
	h.must("postinst", "configure", "")
	for _, verb := range []string{" start", "restart", "enable"} {
		if strings.Contains(h.calls(), verb) {
			t.Errorf("an installation: %s", h.calls())
		}
	}
}

func TestUpgradeRestartsWhatRuns(t *testing.T) {
	h := newHost(t, "c1 running\\n")
	h.must("prerm", "upgrade", "2")
	h.must("postrm", "upgrade", "2")
	if strings.Contains(h.calls(), "stop") || strings.Contains(h.calls(), "disable") {
		t.Errorf("an upgrade stops: %s", h.calls())
	}
	h.must("postinst", "configure", "1")
	calls := h.calls()
	if !strings.Contains(calls, "deb-systemd-invoke restart gantry-compute.service\n") || strings.Contains(calls, "restart gantry-cloud") {
		t.Errorf("calls: %s", calls)
	}
}

func TestRemovalIsRefusedWhileContainersRun(t *testing.T) {
	h := newHost(t, "c1 running\\n")
	out, err := h.script("prerm", "remove")
	if err == nil || !strings.Contains(out, "c1 running") || !strings.Contains(out, "gantry cloud purge") || strings.Contains(h.calls(), "disable") {
		t.Errorf("%v %s %s", err, out, h.calls())
	}
	h = newHost(t, "")
	h.must("prerm", "remove")
	if !strings.Contains(h.calls(), "disable --now gantry-compute.service gantry-cloud.service\n") {
		t.Errorf("calls: %s", h.calls())
	}
}

func TestPurgeTakesStateByTheOperatorsWordOnly(t *testing.T) {
	h := newHost(t, "")
	h.must("postrm", "remove")
	out, err := h.script("postrm", "purge")
	if err != nil || !strings.Contains(out, "stay in") || !h.has("var/lib/gantry/engine/gantry.db") {
		t.Errorf("without a word: %v %s", err, out)
	}
	if err := os.Remove(filepath.Join(h.dir, "etc/gantry/gantry.conf")); err != nil { // as dpkg does
		t.Fatal(err)
	}
	h.write("etc/gantry/purge-state", "")
	h.must("postrm", "purge")
	if h.has("var/lib/gantry") || h.has("etc/gantry") {
		t.Error("with the word something is left")
	}
	h.must("postrm", "purge") // again
}

// TestScriptsAreShell of the plainest kind, and end at errors.
func TestScriptsAreShell(t *testing.T) {
	names := []string{"postinst", "prerm", "postrm"}
	for _, name := range names {
		run(t, nil, "sh", "-n", name)
		text, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(text), "#!/bin/sh\n") || !slices.Contains(strings.Split(string(text), "\n"), "set -e") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
