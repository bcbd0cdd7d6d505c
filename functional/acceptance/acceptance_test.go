//go:build functional

package acceptance

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// module is where the tests are, in the version that go.mod names.
const module = "github.com/gophercloud/gophercloud/v2/internal/acceptance/openstack/"

// packages are those of the services that a gantry cloud has.
var packages = []string{
	"identity/v3", "image/v2", "placement/v1", "compute/v2", "networking/v2", "networking/v2/extensions", "networking/v2/extensions/agents",
	"networking/v2/extensions/layer3", "networking/v2/extensions/mtu", "networking/v2/extensions/portsbinding", "networking/v2/extensions/quotas",
}

const (
	packageTime = 10 * time.Minute
	// excludedTime bounds one that is excluded: some wait for long for what does
	// not come.
	excludedTime = "15s"
)

// TestGophercloudsAcceptanceTestsPass asks as the administrator, and as a tenant
// what the tests do not let an administrator ask.
func TestGophercloudsAcceptanceTestsPass(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	excluded := readExcluded(t)
	for _, name := range packages {
		t.Run(name, func(t *testing.T) {
			s := suite{dir: t.TempDir(), binary: build(t, name), admin: environ(t, p, "admin"), demo: environ(t, p, "demo")}
			s.run(t, excluded[name])
		})
	}
	for name := range excluded {
		if !slices.Contains(packages, name) {
			t.Errorf("excluded.txt: no package %s", name)
		}
	}
}

// suite is the tests of one package.
type suite struct {
	dir, binary string
	admin, demo []string
}

func (s suite) run(t *testing.T, excluded map[string]string) {
	t.Helper()
	results, err := s.test(t.Context(), s.admin, "-test.skip", exactly(excluded))
	if err != nil {
		t.Fatal(err)
	}
	var again []string
	for name, r := range results {
		if r.verdict == "SKIP" && strings.Contains(r.text, "must be a non-admin") {
			again = append(again, name)
		}
	}
	if len(again) > 0 {
		tenant, err := s.test(t.Context(), s.demo, "-test.run", "^("+strings.Join(again, "|")+")$")
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(results, tenant)
	}
	passed := 0
	for _, name := range s.list(t) {
		if excluded[name] != "" {
			continue
		}
		if r := results[name]; r.verdict != "PASS" {
			t.Errorf("%s: %s\n%s", name, r.verdict, r.text)
		} else {
			passed++
		}
	}
	t.Logf("%d passed, %d excluded", passed, len(excluded))
	all := s.list(t)
	var group errgroup.Group
	group.SetLimit(4)
	for name, reason := range excluded {
		if !slices.Contains(all, name) {
			t.Errorf("excluded.txt: no test %s", name)
		}
		if strings.HasPrefix(reason, chance) {
			continue
		}
		group.Go(func() error {
			r, err := s.test(t.Context(), s.admin, "-test.run", "^"+name+"$", "-test.timeout", excludedTime)
			if r[name].verdict == "PASS" {
				t.Errorf("%s passes, but is excluded: %s", name, reason)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// result of a test; no verdict is one that has not ended.
type result struct{ verdict, text string }

var (
	began = regexp.MustCompile(`(?m)^=== RUN +(Test\w+)$`)
	ended = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\w+) `)
)

// test runs tests of the package and returns what each came to. That some fail
// is none of its errors.
func (s suite) test(ctx context.Context, env []string, args ...string) (map[string]result, error) {
	ctx, cancel := context.WithTimeout(ctx, packageTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary, append([]string{"-test.v"}, args...)...)
	cmd.Dir, cmd.Env = s.dir, env
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		return nil, err
	}
	results := map[string]result{}
	starts := began.FindAllSubmatchIndex(out, -1)
	for i, at := range starts {
		end := len(out)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		name, text := string(out[at[2]:at[3]]), out[at[0]:end]
		r := result{text: string(text[max(0, len(text)-3000):])}
		for _, m := range ended.FindAllSubmatch(text, -1) {
			if string(m[2]) == name {
				r.verdict = string(m[1])
			}
		}
		results[name] = r
	}
	return results, nil
}

// list is the names of all tests.
func (s suite) list(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), s.binary, "-test.list", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// exactly is a pattern of these names, or of none.
func exactly(names map[string]string) string {
	all := []string{"none"}
	for name := range names {
		all = append(all, name)
	}
	return "^(" + strings.Join(all, "|") + ")$"
}

// build compiles the tests of a package.
func build(t *testing.T, name string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "suite.test")
	out, err := exec.CommandContext(t.Context(), "go", "test", "-tags", "acceptance", "-c", "-o", binary, module+name).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// environ is what the tests want to know, beside who asks.
func environ(t *testing.T, p *cloudtest.Cloud, user string) []string {
	t.Helper()
	c := p.As(t, "admin")
	pages, err := images.List(c.Image, images.ListOpts{Name: "busybox"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pictures, err := images.ExtractImages(pages)
	if err != nil || len(pictures) != 1 {
		t.Fatalf("%d images of busybox: %v", len(pictures), err)
	}
	pages, err = networks.List(c.Network, networks.ListOpts{Name: "public"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	outside, err := networks.ExtractNetworks(pages)
	if err != nil || len(outside) != 1 {
		t.Fatalf("%d networks to the outside: %v", len(outside), err)
	}
	return append(p.Env(t, user), "OS_DOMAIN_ID=default", "OS_BRANCH=stable/zed", "OS_NETWORK_NAME=private", "OS_POOL_NAME=public",
		"OS_FLAVOR_ID=1", "OS_FLAVOR_ID_RESIZE=2", "OS_IMAGE_ID="+pictures[0].ID, "OS_EXTGW_ID="+outside[0].ID)
}

// chance is before the name of a test that passes or not; it is not run.
const chance = "~"

// readExcluded reads lines of "PACKAGE TEST | reason".
func readExcluded(t *testing.T) map[string]map[string]string {
	t.Helper()
	data, err := os.ReadFile("excluded.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]string{}
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		what, reason, ok := strings.Cut(text, " | ")
		name, test, two := strings.Cut(what, " ")
		if !ok || !two || reason == "" {
			t.Fatalf("excluded.txt: %q is no line of PACKAGE TEST | reason", text)
		}
		if all[name] == nil {
			all[name] = map[string]string{}
		}
		if by, ok := strings.CutPrefix(test, chance); ok {
			test, reason = by, chance+reason
		}
		all[name][test] = reason
	}
	return all
}
