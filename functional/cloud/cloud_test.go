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
)

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
	return servers.Create(t.Context(), c.compute, servers.CreateOpts{
		Name: name, ImageRef: c.image1(t), FlavorRef: "1", Networks: "auto",
	}, nil).Extract()
}

// image1 is the id of the image that a new cloud has.
func (c clients) image1(t *testing.T) string {
	t.Helper()
	pages, err := images.List(c.image, images.ListOpts{Name: "busybox"}).AllPages(t.Context())
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
	eventually(t, "server "+status, func() (yes bool, err error) {
		s, err = servers.Get(t.Context(), c.compute, id).Extract()
		if err == nil && s.Status == "ERROR" && status != "ERROR" {
			t.Fatalf("server is in error: %+v", s.Fault)
		}
		return err == nil && s.Status == status, err
	})
	return s
}

func (c clients) delete(t *testing.T, id string) {
	t.Helper()
	if err := servers.Delete(t.Context(), c.compute, id).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "server is gone", func() (bool, error) {
		_, err := servers.Get(t.Context(), c.compute, id).Extract()
		return gophercloud.ResponseCodeIs(err, http.StatusNotFound), nil
	})
}

func TestATenantBootsByTheStockClient(t *testing.T) {
	p := boot(t, filepath.Join(t.TempDir(), "state"))
	id := p.openstack(t, "demo", "server", "create", "--image", "busybox", "--flavor", "m1.tiny", "--network", "private", "--wait", "-f", "value", "-c", "id", "first")
	if got := p.openstack(t, "demo", "server", "show", id, "-f", "value", "-c", "status", "-c", "name"); got != "first\nACTIVE" {
		t.Errorf("shown as %q", got)
	}
	c := p.as(t, "demo")
	eventually(t, "console", func() (bool, error) {
		text, err := servers.ShowConsoleOutput(t.Context(), c.compute, id, servers.ShowConsoleOutputOpts{}).Extract()
		return strings.Contains(text, "this is first, a container") && strings.Contains(text, "eth0 has 10.0."), err
	})
	list := p.openstack(t, "demo", "server", "list", "-f", "value", "-c", "Name", "-c", "Image", "-c", "Flavor")
	if list != "first busybox m1.tiny" {
		t.Errorf("listed as %q", list)
	}
	if got := p.openstack(t, "admin", "hypervisor", "list", "-f", "value", "-c", "State"); got != "up" {
		t.Errorf("hypervisor is %q", got)
	}
	p.openstack(t, "demo", "server", "delete", "--wait", id)
	if got := p.openstack(t, "demo", "server", "list", "-f", "value"); got != "" {
		t.Errorf("left: %q", got)
	}
	if got := p.openstack(t, "demo", "port", "list", "-f", "value", "--device-id", id); got != "" {
		t.Errorf("ports left: %q", got)
	}
}

func TestLifeOfAServer(t *testing.T) {
	p := boot(t, filepath.Join(t.TempDir(), "state"))
	c := p.as(t, "demo")
	s := c.server(t, "one")
	if err := servers.Stop(t.Context(), c.compute, s.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "SHUTOFF")
	if err := servers.Stop(t.Context(), c.compute, s.ID).ExtractErr(); !gophercloud.ResponseCodeIs(err, http.StatusConflict) {
		t.Errorf("stop of a stopped one: %v", err)
	}
	if err := servers.Start(t.Context(), c.compute, s.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "ACTIVE")
	if err := servers.Reboot(t.Context(), c.compute, s.ID, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "ACTIVE")
	if err := servers.Pause(t.Context(), c.compute, s.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "PAUSED")
	if err := servers.Unpause(t.Context(), c.compute, s.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "ACTIVE")
	snapshot, err := servers.CreateImage(t.Context(), c.compute, s.ID, servers.CreateImageOpts{Name: "snap"}).ExtractImageID()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "snapshot is active", func() (bool, error) {
		i, err := images.Get(t.Context(), c.image, snapshot).Extract()
		return err == nil && i.Status == images.ImageStatusActive && i.SizeBytes > 0, err
	})
	again, err := servers.Create(t.Context(), c.compute, servers.CreateOpts{Name: "two", ImageRef: snapshot, FlavorRef: "1", Networks: "auto"}, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
	c.await(t, again.ID, "ACTIVE")
	c.delete(t, again.ID)
	c.delete(t, s.ID)
}

func TestACloudThatIsKilledLosesNothing(t *testing.T) {
	p := boot(t, filepath.Join(t.TempDir(), "state"))
	c := p.as(t, "demo")
	s := c.server(t, "kept")
	f, err := flavors.Create(t.Context(), p.as(t, "admin").compute, flavors.CreateOpts{Name: "own", RAM: 64, VCPUs: 1, Disk: new(1)}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		p.stop(t, sig)
		p.start(t)
		// the token from before is still good
		got, err := servers.Get(t.Context(), c.compute, s.ID).Extract()
		if err != nil || got.Status != "ACTIVE" || got.Name != "kept" {
			t.Fatalf("after %v: %+v, %v", sig, got, err)
		}
		if got, err := flavors.Get(t.Context(), c.compute, f.ID).Extract(); err != nil || got.Name != "own" {
			t.Errorf("after %v: flavor %+v, %v", sig, got, err)
		}
	}
	if err := servers.Reboot(t.Context(), c.compute, s.ID, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "ACTIVE")
	c.delete(t, s.ID)
}

func TestTenantsSeeNothingOfOneAnother(t *testing.T) {
	p := boot(t, filepath.Join(t.TempDir(), "state"))
	demo, admin := p.as(t, "demo"), p.as(t, "admin")
	s := demo.server(t, "mine")
	project, err := projects.Create(t.Context(), admin.identity, projects.CreateOpts{Name: "other"}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	user, err := users.Create(t.Context(), admin.identity, users.CreateOpts{Name: "other", Password: "hush"}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	p.openstack(t, "admin", "role", "add", "--user", user.ID, "--project", project.ID, "member")
	other := p.login(t, "other", "hush", "other")
	if _, err := servers.Get(t.Context(), other.compute, s.ID).Extract(); !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		t.Errorf("another tenant's server: %v", err)
	}
	if err := servers.Delete(t.Context(), other.compute, s.ID).ExtractErr(); !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		t.Errorf("delete of another tenant's server: %v", err)
	}
	pages, err := servers.List(other.compute, servers.ListOpts{AllTenants: true}).AllPages(t.Context())
	if err == nil {
		list, err := servers.ExtractServers(pages)
		if err != nil || len(list) > 0 {
			t.Errorf("listed: %v, %v", list, err)
		}
	}
	demo.delete(t, s.ID)
}

func TestQuotaHoldsUnderParallelCreates(t *testing.T) {
	p := boot(t, filepath.Join(t.TempDir(), "state"))
	admin, demo := p.as(t, "admin"), p.as(t, "demo")
	project, err := projects.List(admin.identity, projects.ListOpts{Name: "demo"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := projects.ExtractProjects(project)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	_, err = admin.compute.Put(t.Context(), admin.compute.ServiceURL("os-quota-sets", list[0].ID), map[string]any{"quota_set": map[string]any{"instances": 2}}, nil, &gophercloud.RequestOpts{OkCodes: []int{200}})
	if err != nil {
		t.Fatal(err)
	}
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
	p := boot(t, filepath.Join(t.TempDir(), "state"))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"state in use":       {[]string{"--state", p.state, "--listen", "127.0.0.1:0"}, "another cloud runs with the state"},
		"port in use":        {[]string{"--state", t.TempDir(), "--listen", strings.TrimPrefix(p.url, "http://")}, "address already in use"},
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
