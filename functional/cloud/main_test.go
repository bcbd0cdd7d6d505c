//go:build functional

package cloud

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
)

// process is a gantry cloud that this program has started.
type process struct {
	state, url string
	cmd        *exec.Cmd
	log        string
}

// readyTime bounds a start; it is not what is promised.
const readyTime = time.Minute

// boot starts a cloud with that state, on a port that is free. Its instances and
// its keeper are ended with the test.
func boot(t *testing.T, state string, args ...string) *process {
	t.Helper()
	p := &process{state: state, log: filepath.Join(filepath.Dir(state), filepath.Base(state)+".log")}
	p.start(t, args...)
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			t.Logf("log of the cloud:\n%s", text[max(0, len(text)-8000):])
		}
		p.stop(t, syscall.SIGINT)
		endKeeper(t, state)
	})
	return p
}

// start starts it again, at the same address if it had one.
func (p *process) start(t *testing.T, args ...string) {
	t.Helper()
	address := strings.TrimPrefix(p.url, "http://")
	if address == "" {
		address = "127.0.0.1:0"
	}
	p.cmd = exec.Command(os.Getenv("GANTRY_BINARY"), append([]string{"cloud", "--state", p.state, "--listen", address, "--log-file", p.log}, args...)...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	p.cmd.Stderr = &stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		said <- line
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case line := <-said:
		_, rest, ok := strings.Cut(line, "The cloud is up at ")
		if !ok {
			_ = p.cmd.Wait()
			t.Fatalf("the cloud said %q and %q", line, stderr.String())
		}
		p.url, _, _ = strings.Cut(rest, ". ")
	case <-time.After(readyTime):
		t.Fatal("the cloud does not come up")
	}
}

// stop ends it by a signal and waits.
func (p *process) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	err := p.cmd.Wait()
	p.cmd = nil
	if _, killed := errors.AsType[*exec.ExitError](err); err != nil && (!killed || sig != syscall.SIGKILL) {
		t.Errorf("the cloud ended: %v", err)
	}
}

// endKeeper ends the keeper of a state, and with it the guard: gantry leaves
// both to hold instances.
func endKeeper(t *testing.T, state string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(state, "compute", "engine", "keeper.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err := errors.Join(err, convErr); err != nil {
		t.Error(err)
		return
	}
	// the pid counts only while it is still that program on that state
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err == nil && bytes.Contains(line, []byte(state)) {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}

// environ are the settings that gantry cloud env prints for a user.
func (p *process) environ(t *testing.T, user string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), os.Getenv("GANTRY_BINARY"), "cloud", "env", "--state", p.state, "--user", user).Output()
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	for line := range strings.Lines(string(out)) {
		if set, ok := strings.CutPrefix(strings.TrimSpace(line), "export "); ok {
			env = append(env, set)
		}
	}
	return env
}

// openstack runs the stock client and returns what it printed.
func (p *process) openstack(t *testing.T, user string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openstack", args...)
	cmd.Env = p.environ(t, user)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openstack %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// clients are gophercloud's.
type clients struct {
	compute, image, network, identity, placement *gophercloud.ServiceClient
}

// login returns clients of a user of a project.
func (p *process) login(t *testing.T, user, password, project string) clients {
	t.Helper()
	provider, err := openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{
		IdentityEndpoint: p.url + "/identity/v3", Username: user, Password: password, DomainID: "default",
		Scope: &gophercloud.AuthScope{ProjectName: project, DomainID: "default"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var c clients
	var errs [5]error
	at := gophercloud.EndpointOpts{Region: "RegionOne"}
	c.compute, errs[0] = openstack.NewComputeV2(provider, at)
	c.image, errs[1] = openstack.NewImageV2(provider, at)
	c.network, errs[2] = openstack.NewNetworkV2(provider, at)
	c.identity, errs[3] = openstack.NewIdentityV3(provider, at)
	c.placement, errs[4] = openstack.NewPlacementV1(provider, at)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	c.compute.Microversion, c.placement.Microversion = "2.93", "1.39"
	return c
}

// as returns clients of a user that a new cloud has.
func (p *process) as(t *testing.T, user string) clients {
	t.Helper()
	for _, set := range p.environ(t, user) {
		if password, ok := strings.CutPrefix(set, "OS_PASSWORD="); ok {
			return p.login(t, user, password, user)
		}
	}
	t.Fatal("no password")
	return clients{}
}

// eventually repeats ask until it says yes.
func eventually(t *testing.T, what string, ask func() (bool, error)) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		yes, err := ask()
		if err == nil && yes {
			return
		}
		last = err
		select {
		case <-deadline:
			t.Fatalf("%s: not within a minute: %v", what, last)
		case <-tick.C:
		}
	}
}
