//go:build terraform

package terraform

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// commandTime bounds one run of terraform.
const commandTime = 5 * time.Minute

// TestALifeOfResources applies, plans again without changes, changes, and
// destroys without a rest.
func TestALifeOfResources(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	before := inventory(t, p)
	tf := prepare(t, p)

	tf.run(t, "apply", "-auto-approve")
	tf.unchanged(t)
	if got := tf.output(t, "read_name"); got != "tf-first" {
		t.Errorf("the server's name is %q", got)
	}
	if got := tf.output(t, "fixed_ip"); got != "10.230.1.50" {
		t.Errorf("the server's address is %q", got)
	}
	server := tf.output(t, "first")

	tf.vars["suffix"], tf.vars["role"], tf.vars["groups"], tf.vars["allowed_port"] = "-2", "spare", `["default","tf-more"]`, "2222"
	tf.run(t, "apply", "-auto-approve")
	tf.unchanged(t)
	if got := tf.output(t, "read_name"); got != "tf-first-2" {
		t.Errorf("the server's name is %q after the change", got)
	}
	if got := tf.output(t, "first"); got != server {
		t.Errorf("the server was made anew: %s is %s now", server, got)
	}

	tf.run(t, "destroy", "-auto-approve")
	after := inventory(t, p)
	for _, what := range slices.Sorted(maps.Keys(after)) {
		if !slices.Contains(slices.Collect(maps.Keys(before)), what) {
			t.Errorf("left: %s", what)
		}
		delete(before, what)
	}
	for what := range before {
		t.Errorf("gone: %s", what)
	}
}

// runner runs terraform.
type runner struct {
	dir  string
	env  []string
	vars map[string]string
}

// prepare sets up a directory for one cloud.
func prepare(t *testing.T, p *cloudtest.Cloud) runner {
	t.Helper()
	dir := t.TempDir()
	main, err := os.ReadFile(filepath.Join("testdata", "main.tf"))
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"terraform-provider-openstack/openstack\" = %q\n  }\n  direct {}\n}\n",
		filepath.Dir(os.Getenv("TERRAFORM_PROVIDER")))
	image := filepath.Join(dir, "box.tar")
	for name, data := range map[string][]byte{filepath.Join(dir, "main.tf"): main, filepath.Join(dir, "settings.tfrc"): []byte(settings), image: busybox(t, p)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return runner{
		dir: dir,
		env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1",
			"TF_CLI_CONFIG_FILE=" + filepath.Join(dir, "settings.tfrc"), "OS_CLIENT_CONFIG_FILE=" + filepath.Join(p.State, "clouds.yaml"),
		},
		vars: map[string]string{
			"image_file": image, "host": host, "suffix": "", "role": "first", "groups": `["default"]`, "allowed_port": "22",
		},
	}
}

// run runs one command, which has to succeed.
func (r runner) run(t *testing.T, args ...string) {
	t.Helper()
	if out, code := r.try(t, args...); code != 0 {
		t.Fatalf("terraform %s: exit code %d\n%s", args[0], code, out)
	}
}

// unchanged makes a plan, which has to be empty.
func (r runner) unchanged(t *testing.T) {
	t.Helper()
	if out, code := r.try(t, "plan", "-detailed-exitcode"); code != 0 {
		t.Errorf("a second plan: exit code %d\n%s", code, out)
	}
}

// try runs one command and returns what it said and its exit code.
func (r runner) try(t *testing.T, args ...string) (string, int) {
	t.Helper()
	args = append(args, "-no-color", "-input=false")
	for _, name := range slices.Sorted(maps.Keys(r.vars)) {
		args = append(args, "-var", name+"="+r.vars[name])
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "terraform", args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("terraform: %v", err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// output reads an output of type string.
func (r runner) output(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "terraform", "output", "-raw", name)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("terraform output %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// busybox is the data of the image that a new cloud has.
func busybox(t *testing.T, p *cloudtest.Cloud) []byte {
	t.Helper()
	c := p.As(t, "admin")
	pages, err := images.List(c.Image, images.ListOpts{Name: "busybox"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := images.ExtractImages(pages)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d images of busybox: %v", len(all), err)
	}
	body, err := imagedata.Download(t.Context(), c.Image, all[0].ID).Extract()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// inventory is everything that is in the cloud: collection, id and name.
func inventory(t *testing.T, p *cloudtest.Cloud) map[string]bool {
	t.Helper()
	c := p.As(t, "admin")
	demo := p.As(t, "demo")
	out := map[string]bool{}
	list := func(client *gophercloud.ServiceClient, path string) {
		var answer map[string]json.RawMessage
		if _, err := client.Get(t.Context(), client.ServiceURL(path), &answer, nil); err != nil {
			t.Fatal(err)
		}
		for _, raw := range answer {
			if !bytes.HasPrefix(raw, []byte("[")) {
				continue
			}
			var records []map[string]any
			if err := json.Unmarshal(raw, &records); err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				if pair, ok := r["keypair"].(map[string]any); ok {
					r = pair
				}
				out[fmt.Sprintf("%s %v %v", path, r["id"], r["name"])] = true
			}
		}
	}
	for _, path := range []string{"servers?all_tenants=1", "flavors?is_public=None", "os-aggregates"} {
		list(c.Compute, path)
	}
	for _, path := range []string{"os-keypairs", "os-server-groups"} {
		list(demo.Compute, path)
	}
	for _, path := range []string{
		"networks", "subnets", "ports", "routers", "floatingips", "subnetpools", "address-scopes", "rbac-policies", "address-groups",
	} {
		list(c.Network, path)
	}
	for _, path := range []string{"security-groups", "security-group-rules"} { // a new project has its default group
		list(demo.Network, path)
	}
	for _, path := range []string{"projects", "users", "groups", "roles", "services", "endpoints"} {
		list(c.Identity, path)
	}
	list(c.Image, "images")
	return out
}
