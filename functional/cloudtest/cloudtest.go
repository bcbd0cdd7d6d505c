// Package cloudtest starts gantry cloud for tests, and is its clients. The binary
// is GANTRY_BINARY.
package cloudtest

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

// Cloud is a gantry cloud that this program has started.
type Cloud struct {
	// State is its directory, URL where it answers.
	State, URL string
	cmd        *exec.Cmd
	log        string
}

// readyTime bounds a start; it is not what is promised.
const readyTime = time.Minute

// Boot starts a cloud with that state, on a port that is free. Its instances and
// its keeper are ended with the test.
func Boot(t *testing.T, state string, args ...string) *Cloud {
	t.Helper()
	p := &Cloud{State: state, log: filepath.Join(filepath.Dir(state), filepath.Base(state)+".log")}
	p.Start(t, args...)
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			t.Logf("log of the cloud:\n%s", text[max(0, len(text)-8000):])
		}
		p.Stop(t, syscall.SIGINT)
		if out, err := exec.Command(os.Getenv("GANTRY_BINARY"), "cloud", "purge", "--state", state).CombinedOutput(); err != nil { //nolint:noctx // the test's has ended
			t.Errorf("purge: %v: %s", err, out)
		}
	})
	return p
}

// Start starts it again, at the same address if it had one.
func (p *Cloud) Start(t *testing.T, args ...string) {
	t.Helper()
	address := strings.TrimPrefix(p.URL, "http://")
	if address == "" {
		address = "127.0.0.1:0"
	}
	p.cmd = exec.Command(os.Getenv("GANTRY_BINARY"), append([]string{"cloud", "--state", p.State, "--listen", address, "--log-file", p.log}, args...)...)
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
		p.URL, _, _ = strings.Cut(rest, ". ")
	case <-time.After(readyTime):
		t.Fatal("the cloud does not come up")
	}
}

// Stop ends it by a signal and waits.
func (p *Cloud) Stop(t *testing.T, sig syscall.Signal) {
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

// EndKeeper ends the keeper of an engine, and with it the guard: gantry leaves
// both to hold instances.
func EndKeeper(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "keeper.pid"))
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
	if err != nil || !bytes.Contains(line, []byte(dir)) {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	// with it ends what is mounted below its directory
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !bytes.Contains(line, []byte(dir)) {
			return
		}
	}
	t.Errorf("the keeper of %s does not end", dir)
}

// Env are the settings that gantry cloud env prints for a user.
func (p *Cloud) Env(t *testing.T, user string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), os.Getenv("GANTRY_BINARY"), "cloud", "env", "--state", p.State, "--user", user).Output()
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

// OpenStack runs the stock client and returns what it printed.
func (p *Cloud) OpenStack(t *testing.T, user string, args ...string) string {
	t.Helper()
	out, err := p.TryOpenStack(t, user, args...)
	if err != nil {
		t.Fatalf("openstack %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// TryOpenStack runs the stock client, which may fail: its error holds what the
// client says of it.
func (p *Cloud) TryOpenStack(t *testing.T, user string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openstack", args...)
	cmd.Env = p.Env(t, user)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

// Clients are gophercloud's.
type Clients struct {
	Compute, Image, Network, Identity, Placement *gophercloud.ServiceClient
}

// Login returns clients of a user of a project.
func (p *Cloud) Login(t *testing.T, user, password, project string) Clients {
	t.Helper()
	provider, err := openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{
		IdentityEndpoint: p.URL + "/identity/v3", Username: user, Password: password, DomainID: "default",
		Scope: &gophercloud.AuthScope{ProjectName: project, DomainID: "default"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var c Clients
	var errs [5]error
	at := gophercloud.EndpointOpts{Region: "RegionOne"}
	c.Compute, errs[0] = openstack.NewComputeV2(provider, at)
	c.Image, errs[1] = openstack.NewImageV2(provider, at)
	c.Network, errs[2] = openstack.NewNetworkV2(provider, at)
	c.Identity, errs[3] = openstack.NewIdentityV3(provider, at)
	c.Placement, errs[4] = openstack.NewPlacementV1(provider, at)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	c.Compute.Microversion, c.Placement.Microversion = "2.93", "1.39"
	return c
}

// As returns clients of a user that a new cloud has.
func (p *Cloud) As(t *testing.T, user string) Clients {
	t.Helper()
	return p.Login(t, user, p.Password(t, user), user)
}

// Password is that of a user that a new cloud has.
func (p *Cloud) Password(t *testing.T, user string) string {
	t.Helper()
	for _, set := range p.Env(t, user) {
		if password, ok := strings.CutPrefix(set, "OS_PASSWORD="); ok {
			return password
		}
	}
	t.Fatal("no password")
	return ""
}

// Eventually repeats ask until it says yes.
func Eventually(t *testing.T, what string, ask func() (bool, error)) {
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
