package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/cmd/internal/manual"
	"github.com/gantry-project/gantry/cmd/internal/runtimecmd"
	"github.com/gantry-project/gantry/internal/roff"
)

var update = flag.Bool("update", false, "write docs/man")

const manDir = "../../docs/man"

// everyPage is in the section See also of all pages.
var everyPage = []string{
	"gantry(1)", "gantry-containers(1)", "gantry-images(1)", "gantry.conf(5)", "gantry-services(8)", "gantry-admin(8)", "gantry-runtime(8)",
}

func seeAlso(but string) []string {
	return slices.DeleteFunc(slices.Clone(everyPage), func(s string) bool { return strings.HasPrefix(s, but+"(") })
}

// manualPages are all that are made of commands, by their file names.
func manualPages(t *testing.T) map[string][]byte {
	t.Helper()
	for name, value := range map[string]string{"GANTRY_STORE_PATH": "", "GANTRY_SOCKET": "", "XDG_CACHE_HOME": "", "HOME": "/root"} {
		t.Setenv(name, value) // defaults of options
	}
	cmd := root(nil)
	out := map[string][]byte{"gantry.1": overview(cmd)}
	for _, g := range groups() {
		p := manual.Page{Name: g.page, Section: g.section, About: g.about, Text: g.text, SeeAlso: seeAlso(g.page)}
		for _, verb := range g.verbs {
			c, _, err := cmd.Find([]string{verb})
			if err != nil {
				t.Fatal(err)
			}
			if verb != "runtime" {
				p.Commands = append(p.Commands, c)
			}
		}
		out[g.page+"."+g.section] = p.Render()
	}
	r := runtimecmd.Command("gantry-runtime", nil)
	out["gantry-runtime.8"] = manual.Page{
		Name: "gantry-runtime", Section: "8", About: "run containers by the OCI runtime specification",
		Text: "The command line that container engines call: docker, podman, containerd and cri-o use it as they use runc(8). " +
			"gantry runtime is the same. Containers are kept below the directory of --root.",
		Commands: []*cobra.Command{r}, SeeAlso: seeAlso("gantry-runtime"),
	}.Render()
	return out
}

// overview is gantry(1).
func overview(cmd *cobra.Command) []byte {
	p := roff.New("gantry", "1", "OpenStack instances as containers")
	p.Section("Synopsis")
	p.Usage("gantry COMMAND [OPTION...] [ARGUMENT...]")
	p.Section("Description")
	p.Text("gantry makes a Linux host an OpenStack hypervisor whose instances are containers: gantry compute stands in the place of nova-compute. " +
		"gantry cloud is a small OpenStack of its own on one machine, and gantry engine runs containers without any.\n\n" +
		"gantry COMMAND --help says what a command takes.")
	p.Section("Commands")
	for _, g := range groups() {
		p.Sub(strings.TrimSuffix(g.title, ":") + ": " + g.page + "(" + g.section + ")")
		for _, verb := range g.verbs {
			c, _, _ := cmd.Find([]string{verb})
			p.Term("gantry "+verb, "", c.Short)
		}
	}
	p.Sub("Shells")
	p.Term("gantry completion", "bash|zsh|fish", "print the completion of commands and options for a shell; gantry completion SHELL --help says where it goes")
	p.Section("Exit status")
	p.Term("0", "", "it is done")
	p.Term("1", "", "it is not; standard error says why")
	p.Term("2", "", "gantry doctor: something is wrong, and is printed")
	p.Term("78", "", "gantry compute and gantry doctor: the configuration cannot be used")
	p.Term("other", "", "gantry run --follow, wait, exec and attach: the status of what ran")
	p.Section("Environment")
	p.Term("GANTRY_STORE_PATH", "", "default of --store-path")
	p.Term("GANTRY_SOCKET", "", "default of --socket")
	p.Term("GANTRY_SECTION_KEY", "", "an option of gantry.conf(5), in capitals: GANTRY_DEFAULT_HOST")
	p.Section("Files")
	p.Term("/etc/gantry/gantry.conf", "", "configuration that the unit of the Debian package reads, gantry.conf(5)")
	p.Term("/var/lib/gantry", "", "state of gantry compute: instances, images, disks")
	p.Term("/var/lib/gantry-cloud", "", "state of gantry cloud")
	manual.SeeAlso(p, seeAlso("gantry"))
	return p.Bytes()
}

func TestManualPagesAreCurrent(t *testing.T) {
	for name, want := range manualPages(t) {
		file := filepath.Join(manDir, name)
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the commands say (%v): run go test ./cmd/gantry -run Manual -update", file, err)
		}
	}
}

// TestManualPagesRender: all that are delivered, without a warning, and each
// page that one names is there.
func TestManualPagesRender(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(manDir, "*.[158]"))
	if err != nil || len(files) != len(everyPage) {
		t.Fatalf("%q %v", files, err)
	}
	for _, p := range everyPage {
		name := strings.NewReplacer("(", ".", ")", "").Replace(p)
		if !slices.Contains(files, filepath.Join(manDir, name)) {
			t.Errorf("no page %s", p)
		}
	}
	for _, f := range files {
		cmd := exec.Command("man", "--warnings=w", "-E", "UTF-8", "-l", f)
		cmd.Env = append(cmd.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MAN_DISABLE_SECCOMP=1")
		var warnings bytes.Buffer
		cmd.Stderr = &warnings
		out, err := cmd.Output()
		if err != nil || warnings.Len() > 0 || !bytes.Contains(out, []byte("SEE ALSO")) {
			t.Errorf("%s: %v %s", f, err, &warnings)
		}
	}
}

// TestEveryVerbHasAGroup, so that help and pages show it.
func TestEveryVerbHasAGroup(t *testing.T) {
	cmd := root(nil)
	for _, c := range cmd.Commands() {
		if (c.GroupID == "") != c.Hidden {
			t.Errorf("%s: group %q, hidden %v", c.Name(), c.GroupID, c.Hidden)
		}
	}
	for _, g := range groups() {
		for _, verb := range g.verbs {
			if c, _, err := cmd.Find([]string{verb}); err != nil || c == cmd {
				t.Errorf("group %s: no verb %s", g.id, verb)
			}
		}
	}
}
