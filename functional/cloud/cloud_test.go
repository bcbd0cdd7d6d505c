//go:build functional

package cloud

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/users"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// clients are those of one user.
type clients struct{ cloudtest.Clients }

// as returns the clients of a user that a new cloud has.
func as(t *testing.T, p *cloudtest.Cloud, user string) clients {
	t.Helper()
	return clients{p.As(t, user)}
}

// server makes one of busybox on the network private and waits until it runs.
func (c clients) server(t *testing.T, name string) *servers.Server {
	t.Helper()
	s, err := c.create(t, name)
	if err != nil {
		t.Fatal(err)
	}
	return c.await(t, s.ID, "ACTIVE")
}

func (c clients) create(t *testing.T, name string) (*servers.Server, error) {
	t.Helper()
	return servers.Create(t.Context(), c.Compute, servers.CreateOpts{
		Name: name, ImageRef: c.image1(t), FlavorRef: "1", Networks: "auto",
	}, nil).Extract()
}

// image1 is the id of the image that a new cloud has.
func (c clients) image1(t *testing.T) string {
	t.Helper()
	pages, err := images.List(c.Image, images.ListOpts{Name: "busybox"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := images.ExtractImages(pages)
	if err != nil || len(list) != 1 {
		t.Fatalf("image busybox: %d, %v", len(list), err)
	}
	return list[0].ID
}

func (c clients) await(t *testing.T, id, status string) *servers.Server {
	t.Helper()
	var s *servers.Server
	cloudtest.Eventually(t, "server "+status, func() (yes bool, err error) {
		s, err = servers.Get(t.Context(), c.Compute, id).Extract()
		if err == nil && s.Status == "ERROR" && status != "ERROR" {
			t.Fatalf("server is in error: %+v", s.Fault)
		}
		return err == nil && s.Status == status, err
	})
	return s
}

func (c clients) delete(t *testing.T, id string) {
	t.Helper()
	if err := servers.Delete(t.Context(), c.Compute, id).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	cloudtest.Eventually(t, "server is gone", func() (bool, error) {
		_, err := servers.Get(t.Context(), c.Compute, id).Extract()
		return gophercloud.ResponseCodeIs(err, http.StatusNotFound), nil
	})
}

func TestATenantBootsByTheStockClient(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	id := p.OpenStack(t, "demo", "server", "create", "--image", "busybox", "--flavor", "m1.tiny", "--network", "private", "--wait", "-f", "value", "-c", "id", "first")
	if got := p.OpenStack(t, "demo", "server", "show", id, "-f", "value", "-c", "status", "-c", "name"); got != "first\nACTIVE" {
		t.Errorf("shown as %q", got)
	}
	c := as(t, p, "demo")
	cloudtest.Eventually(t, "console", func() (bool, error) {
		text, err := servers.ShowConsoleOutput(t.Context(), c.Compute, id, servers.ShowConsoleOutputOpts{}).Extract()
		return strings.Contains(text, "this is first, a container") && strings.Contains(text, "eth0 has 10.0."), err
	})
	list := p.OpenStack(t, "demo", "server", "list", "-f", "value", "-c", "Name", "-c", "Image", "-c", "Flavor")
	if list != "first busybox m1.tiny" {
		t.Errorf("listed as %q", list)
	}
	if got := p.OpenStack(t, "admin", "hypervisor", "list", "-f", "value", "-c", "State"); got != "up" {
		t.Errorf("hypervisor is %q", got)
	}
	p.OpenStack(t, "demo", "server", "delete", "--wait", id)
	if got := p.OpenStack(t, "demo", "server", "list", "-f", "value"); got != "" {
		t.Errorf("left: %q", got)
	}
	if got := p.OpenStack(t, "demo", "port", "list", "-f", "value", "--device-id", id); got != "" {
		t.Errorf("ports left: %q", got)
	}
}

func TestLifeOfAServer(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	s := c.server(t, "one")
	if err := servers.Stop(t.Context(), c.Compute, s.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "SHUTOFF")
	if err := servers.Stop(t.Context(), c.Compute, s.ID).ExtractErr(); !gophercloud.ResponseCodeIs(err, http.StatusConflict) {
		t.Errorf("stop of a stopped one: %v", err)
	}
	if err := servers.Start(t.Context(), c.Compute, s.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "ACTIVE")
	if err := servers.Reboot(t.Context(), c.Compute, s.ID, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "ACTIVE")
	if err := servers.Pause(t.Context(), c.Compute, s.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "PAUSED")
	if err := servers.Unpause(t.Context(), c.Compute, s.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "ACTIVE")
	snapshot, err := servers.CreateImage(t.Context(), c.Compute, s.ID, servers.CreateImageOpts{Name: "snap"}).ExtractImageID()
	if err != nil {
		t.Fatal(err)
	}
	cloudtest.Eventually(t, "snapshot is active", func() (bool, error) {
		i, err := images.Get(t.Context(), c.Image, snapshot).Extract()
		return err == nil && i.Status == images.ImageStatusActive && i.SizeBytes > 0, err
	})
	again, err := servers.Create(t.Context(), c.Compute, servers.CreateOpts{Name: "two", ImageRef: snapshot, FlavorRef: "1", Networks: "auto"}, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
	c.await(t, again.ID, "ACTIVE")
	c.delete(t, again.ID)
	c.delete(t, s.ID)
}

func TestACloudThatIsKilledLosesNothing(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	s := c.server(t, "kept")
	f, err := flavors.Create(t.Context(), as(t, p, "admin").Compute, flavors.CreateOpts{Name: "own", RAM: 64, VCPUs: 1, Disk: new(1)}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		p.Stop(t, sig)
		p.Start(t)
		// the token from before is still good
		got, err := servers.Get(t.Context(), c.Compute, s.ID).Extract()
		if err != nil || got.Status != "ACTIVE" || got.Name != "kept" {
			t.Fatalf("after %v: %+v, %v", sig, got, err)
		}
		if got, err := flavors.Get(t.Context(), c.Compute, f.ID).Extract(); err != nil || got.Name != "own" {
			t.Errorf("after %v: flavor %+v, %v", sig, got, err)
		}
	}
	if err := servers.Reboot(t.Context(), c.Compute, s.ID, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "ACTIVE")
	c.delete(t, s.ID)
}

func TestTenantsSeeNothingOfOneAnother(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	demo, admin := as(t, p, "demo"), as(t, p, "admin")
	s := demo.server(t, "mine")
	project, err := projects.Create(t.Context(), admin.Identity, projects.CreateOpts{Name: "other"}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	user, err := users.Create(t.Context(), admin.Identity, users.CreateOpts{Name: "other", Password: "hush"}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	p.OpenStack(t, "admin", "role", "add", "--user", user.ID, "--project", project.ID, "member")
	other := p.Login(t, "other", "hush", "other")
	if _, err := servers.Get(t.Context(), other.Compute, s.ID).Extract(); !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		t.Errorf("another tenant's server: %v", err)
	}
	if err := servers.Delete(t.Context(), other.Compute, s.ID).ExtractErr(); !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		t.Errorf("delete of another tenant's server: %v", err)
	}
	pages, err := servers.List(other.Compute, servers.ListOpts{AllTenants: true}).AllPages(t.Context())
	if err == nil {
		list, err := servers.ExtractServers(pages)
		if err != nil || len(list) > 0 {
			t.Errorf("listed: %v, %v", list, err)
		}
	}
	demo.delete(t, s.ID)
}

func TestQuotaHoldsUnderParallelCreates(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	admin, demo := as(t, p, "admin"), as(t, p, "demo")
	project, err := projects.List(admin.Identity, projects.ListOpts{Name: "demo"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := projects.ExtractProjects(project)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	resp, err := admin.Compute.Put(t.Context(), admin.Compute.ServiceURL("os-quota-sets", list[0].ID), map[string]any{"quota_set": map[string]any{"instances": 2}}, nil, &gophercloud.RequestOpts{OkCodes: []int{200}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	var mu sync.Mutex
	var made []string
	refused := 0
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s, err := demo.create(t, fmt.Sprint("q", i))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made = append(made, s.ID)
			case gophercloud.ResponseCodeIs(err, http.StatusForbidden):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(made) != 2 || refused != 6 {
		t.Errorf("%d made and %d refused", len(made), refused)
	}
	for _, id := range made {
		demo.await(t, id, "ACTIVE")
		demo.delete(t, id)
	}
}

func TestABadStartIsRefused(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"state in use":       {[]string{"--state", p.State, "--listen", "127.0.0.1:0"}, "another cloud runs with the state"},
		"port in use":        {[]string{"--state", t.TempDir(), "--listen", strings.TrimPrefix(p.URL, "http://")}, "address already in use"},
		"no loopback":        {[]string{"--state", t.TempDir(), "--listen", "0.0.0.0:0"}, "give --tls-cert and --tls-key"},
		"no address":         {[]string{"--state", t.TempDir(), "--listen", "nonsense"}, "listen on \"nonsense\""},
		"half a certificate": {[]string{"--state", t.TempDir(), "--tls-cert", "x"}, "a certificate needs its key"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), os.Getenv("GANTRY_BINARY"), append([]string{"cloud"}, c.args...)...).CombinedOutput()
			if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 1 || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
