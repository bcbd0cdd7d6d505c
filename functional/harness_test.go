//go:build functional

package functional

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
)

// host is the name of the compute service under test, and of the L2 agent.
const host = "gantry-1"

// cloud is the control plane and the service under test. One is shared by all
// tests of a run; see TestMain.
type cloud struct {
	state  string // of the control plane
	binary string
	pass   string
	admin  clients
	demo   clients
	svc    *service
}

// clients are the services as one user sees them.
type clients struct {
	compute, image, network, placement *gophercloud.ServiceClient
	user, project                      string
}

// the is the shared cloud, made by TestMain.
var the *cloud

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "functional:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	c := &cloud{state: os.Getenv("GANTRY_CONTROLPLANE"), binary: os.Getenv("GANTRY_BINARY"), pass: os.Getenv("GANTRY_CP_PASS")}
	if c.state == "" || c.binary == "" {
		return 1, errors.New("run it by make functional: GANTRY_CONTROLPLANE and GANTRY_BINARY must be set")
	}
	if c.pass == "" {
		c.pass = "gantry"
	}
	ctx := context.Background()
	if c.admin, err = c.login(ctx, "admin", "admin"); err != nil {
		return 1, err
	}
	if c.demo, err = c.login(ctx, "demo", "demo"); err != nil {
		return 1, err
	}
	if c.svc, err = c.start(); err != nil {
		return 1, err
	}
	the = c
	if err := c.waitUp(ctx, bootLimit); err != nil {
		return 1, errors.Join(err, c.svc.stop())
	}
	code = m.Run()
	return code, errors.Join(c.svc.stop(), c.stopKeeper(filepath.Join(c.state, "gantry/engine")))
}

func (c *cloud) login(ctx context.Context, user, project string) (clients, error) {
	provider, err := openstack.AuthenticatedClient(ctx, gophercloud.AuthOptions{
		IdentityEndpoint: "http://127.0.0.1:5000/v3", Username: user, Password: c.pass,
		TenantName: project, DomainID: "default", AllowReauth: true,
	})
	if err != nil {
		return clients{}, fmt.Errorf("log in as %s: %w", user, err)
	}
	out := clients{user: user, project: project}
	eo := gophercloud.EndpointOpts{Region: "RegionOne"}
	if out.compute, err = openstack.NewComputeV2(provider, eo); err != nil {
		return out, err
	}
	out.compute.Microversion = "2.92"
	if out.image, err = openstack.NewImageV2(provider, eo); err != nil {
		return out, err
	}
	if out.network, err = openstack.NewNetworkV2(provider, eo); err != nil {
		return out, err
	}
	if out.placement, err = openstack.NewPlacementV1(provider, eo); err != nil {
		return out, err
	}
	out.placement.Microversion = "1.39"
	return out, nil
}

// openstack runs the stock command line client as the user and returns what
// it printed; a failing command fails the test.
func (c *cloud) openstack(t *testing.T, who clients, args ...string) string {
	t.Helper()
	out, err := c.tryOpenstack(t, who, args...)
	if err != nil {
		t.Fatalf("openstack %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *cloud) tryOpenstack(t *testing.T, who clients, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/openstack", args...)
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8",
		"OS_AUTH_URL=http://127.0.0.1:5000/v3", "OS_IDENTITY_API_VERSION=3", "OS_USERNAME=" + who.user, "OS_PASSWORD=" + c.pass,
		"OS_PROJECT_NAME=" + who.project, "OS_USER_DOMAIN_ID=default", "OS_PROJECT_DOMAIN_ID=default",
		"OS_REGION_NAME=RegionOne", "OS_COMPUTE_API_VERSION=2.92", "OS_PLACEMENT_API_VERSION=1.39",
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// openstackJSON is openstack with -f json, decoded into v.
func (c *cloud) openstackJSON(t *testing.T, v any, who clients, args ...string) {
	t.Helper()
	out := c.openstack(t, who, append(args, "-f", "json")...)
	if i := strings.IndexAny(out, "[{"); i > 0 {
		out = out[i:]
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("openstack %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

// novaManage is the nova-manage of the control plane: Debian's, or that of the
// release under test.
func novaManage() string {
	if venv := os.Getenv("RELEASE_VENV"); venv != "" {
		return filepath.Join(venv, "bin/nova-manage")
	}
	return "/usr/bin/nova-manage"
}

// service is a running gantry compute.
type service struct {
	cmd   *exec.Cmd
	log   *os.File
	ended chan error
}

// config are the files that the service is started with, later ones win.
func (c *cloud) config() []string {
	return []string{filepath.Join(c.state, "etc/nova/common.conf"), filepath.Join(c.state, "etc/nova/gantry.conf")}
}

func (c *cloud) logFile() string { return filepath.Join(c.state, "log/gantry.log") }

// start runs the service with further SECTION.KEY=VALUE settings.
func (c *cloud) start(set ...string) (*service, error) {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	// a grace that a loaded machine keeps too: a command that fails at once is to be seen as one
	args := []string{"compute", "--debug", "--set", "gantry.start_grace=0.5"}
	for _, f := range c.config() {
		args = append(args, "--config-file", f)
	}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	s := &service{cmd: exec.Command(c.binary, args...), log: log, ended: make(chan error, 1)}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.ended <- s.cmd.Wait() }()
	return s, nil
}

// stop asks the service to end, as an operator would.
func (s *service) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
	case <-time.After(bootLimit):
		return errors.Join(fmt.Errorf("the service did not stop in %s", bootLimit), s.kill())
	}
	return s.log.Close()
}

// kill is kill -9.
func (s *service) kill() error {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.ended
	return s.log.Close()
}

// restart replaces the service; with crash it gets no chance to say goodbye.
func (c *cloud) restart(t *testing.T, crash bool, set ...string) {
	t.Helper()
	end := c.svc.stop
	if crash {
		end = c.svc.kill
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	svc, err := c.start(set...)
	if err != nil {
		t.Fatal(err)
	}
	c.svc = svc
	c.waitLog(t, "compute service ready")
}

// startAfter waits for the service to be killed at a failpoint, and starts it
// again without one.
func (c *cloud) startAfter(t *testing.T, point string) {
	t.Helper()
	select {
	case <-c.svc.ended:
	case <-time.After(bootLimit):
		t.Fatal("the service was not killed at " + point)
	}
	svc, err := c.start()
	if err != nil {
		t.Fatal(err)
	}
	c.svc = svc
	c.waitLog(t, "compute service ready")
}

// waitLog waits until the present service has logged the phrase.
func (c *cloud) waitLog(t *testing.T, phrase string) {
	t.Helper()
	mark := []byte(fmt.Sprintf(`"pid":%d`, c.svc.cmd.Process.Pid))
	eventually(t, bootLimit, phrase, func() bool {
		select {
		case err := <-c.svc.ended:
			t.Fatalf("the service ended: %v\n%s", err, c.tail(20))
		default:
		}
		raw, err := os.ReadFile(c.logFile())
		if err != nil {
			return false
		}
		for _, line := range bytes.Split(raw, []byte("\n")) {
			if bytes.Contains(line, mark) && bytes.Contains(line, []byte(phrase)) {
				return true
			}
		}
		return false
	})
}

// tail returns the last lines of the service's log.
func (c *cloud) tail(n int) string {
	raw, err := os.ReadFile(c.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// stopKeeper ends the process that holds the instances of an engine, once no
// instance is left, by the pid that it recorded.
func (c *cloud) stopKeeper(engine string) error {
	raw, err := os.ReadFile(filepath.Join(engine, "keeper.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var pid int
	if _, err := fmt.Sscan(string(raw), &pid); err != nil {
		return err
	}
	cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // nothing, if it has ended
	if !bytes.Contains(cmd, []byte(engine)) {
		return nil // its pid may be somebody else's
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// stopKeeperOf stops the service and the keeper of an engine.
func (c *cloud) stopKeeperOf(t *testing.T, engine string) {
	t.Helper()
	if err := errors.Join(c.svc.kill(), c.stopKeeper(engine)); err != nil {
		t.Error(err)
	}
	svc, err := c.start()
	if err != nil {
		t.Fatal(err)
	}
	c.svc = svc
}

// waitUp waits until Nova, its cell mapping and Placement know the host.
func (c *cloud) waitUp(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(controlplane(), "wait-compute"), host, fmt.Sprint(int(limit.Seconds()))).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the host did not come up: %w: %s\n%s", err, out, c.tail(30))
	}
	return nil
}

// controlplane is the directory of the bring-up scripts.
func controlplane() string {
	dir, err := filepath.Abs("controlplane")
	if err != nil {
		panic(err)
	}
	return dir
}

// eventually polls until ok, or fails the test.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s\n%s", limit, what, the.tail(15))
		case <-tick.C:
		}
	}
}
