package ovs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netbridgetest"
	"github.com/gantry-project/gantry/netbridge/netns"
	"github.com/gantry-project/gantry/netbridge/ovs"
)

// openVSwitch is the real one, in a namespace, with its datapath in user space.
type openVSwitch struct {
	ns         *os.File
	dir        string
	connection string
}

func startSwitch(t *testing.T) *openVSwitch {
	t.Helper()
	s := &openVSwitch{ns: newNS(t), dir: t.TempDir()}
	db, socket := filepath.Join(s.dir, "conf.db"), filepath.Join(s.dir, "db.sock")
	s.connection = "unix:" + socket
	s.run(t, "ovsdb-tool", "create", db, "/usr/share/openvswitch/vswitch.ovsschema")
	s.start(t, "ovsdb-server", db, "--remote=punix:"+socket, "--unixctl="+filepath.Join(s.dir, "db.ctl"), "--log-file="+filepath.Join(s.dir, "db.log"))
	await(t, "the database", func() error {
		c, err := net.Dial("unix", socket) //nolint:noctx // a test's
		if err == nil {
			err = c.Close()
		}
		return err
	})
	s.run(t, "ovs-vsctl", "--no-wait", "init")
	s.start(t, "ovs-vswitchd", s.connection, "--unixctl="+filepath.Join(s.dir, "switch.ctl"), "--log-file="+filepath.Join(s.dir, "switch.log"))
	return s
}

// start runs a daemon in the namespace, until the test ends.
func (s *openVSwitch) start(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Env = s.env()
	if err := netns.Do(s.ns, cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", program, said.String())
		}
	})
}

func (s *openVSwitch) env() []string {
	return append(os.Environ(), "OVS_RUNDIR="+s.dir, "OVS_DBDIR="+s.dir, "OVS_SYSCONFDIR="+s.dir, "OVS_LOGDIR="+s.dir)
}

func (s *openVSwitch) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	if program == "ovs-vsctl" {
		args = append([]string{"--db=" + s.connection, "--timeout=20"}, args...)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = s.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", program, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func newNS(t *testing.T) *os.File {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

func path(ns *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", ns.Fd()) }

func await(t *testing.T, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// guest is the n-th instance, with one port.
func guest(n int, ns *os.File, hybrid bool) netbridge.Plan {
	id := fmt.Sprintf("%08d-aaaa-4bbb-8ccc-%012d", n, n)
	i := netbridgetest.Port(id, "", "", 1400, []string{fmt.Sprintf("10.1.0.%d/24", n)}, nil)
	i.Attachment = netbridge.AttachOVS
	i.OVS = &netbridge.OVS{Bridge: "br-int", Datapath: "netdev", InterfaceID: id, Hybrid: hybrid}
	return netbridge.Plan{Owner: fmt.Sprintf("owner-%d", n), NetNS: path(ns), Interfaces: []netbridge.Interface{i}}
}

// reach says something from one guest to another, and waits for the answer.
func reach(from, to *os.File, at netip.Addr) error {
	address := netip.AddrPortFrom(at, 7).String()
	var l net.PacketConn
	err := netns.Do(to, func() (err error) {
		l, err = net.ListenPacket("udp4", address) //nolint:noctx // a test's
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	var c net.Conn
	err = netns.Do(from, func() (err error) {
		c, err = net.Dial("udp4", address) //nolint:noctx // a test's
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("there")); err != nil {
		return err
	}
	deadline := time.Now().Add(300 * time.Millisecond)
	b := make([]byte, 16)
	if err := l.SetReadDeadline(deadline); err != nil {
		return err
	}
	n, back, err := l.ReadFrom(b)
	if err != nil {
		return err
	}
	if _, err := l.WriteTo(b[:n], back); err != nil {
		return err
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	_, err = c.Read(b)
	return err
}

// TestOpenVSwitch: two instances reach each other through the real switch, one
// plain and one hybrid; afterwards nothing is left.
func TestOpenVSwitch(t *testing.T) {
	s := startSwitch(t)
	o := ovs.Options{Connection: s.connection, Dir: t.TempDir(), Timeout: time.Minute, HostNetNS: path(s.ns)}
	p := newPlugger(t, netbridge.New(netbridge.Options{HostNetNS: path(s.ns)}), o)
	a, b := newNS(t), newNS(t)
	plans := []netbridge.Plan{guest(1, a, false), guest(2, b, true)}
	for range 2 {
		for _, plan := range plans {
			if err := p.Set(t.Context(), plan); err != nil {
				t.Fatal(err)
			}
		}
	}
	there := func() {
		t.Helper()
		await(t, "one guest reaches the other", func() error { return reach(a, b, netip.MustParseAddr("10.1.0.2")) })
		await(t, "and the other the one", func() error { return reach(b, a, netip.MustParseAddr("10.1.0.1")) })
	}
	there()
	ids := s.run(t, "ovs-vsctl", "--format=csv", "--no-headings", "--columns=external_ids", "find", "Interface", "name=qvo00000002-aa")
	for _, want := range []string{"attached-mac=\"fa:16:3e:00:00:02\"", "iface-id=\"00000002-aaaa-4bbb-8ccc-000000000002\"", "iface-status=active", "vm-uuid=owner-2"} {
		if !strings.Contains(strings.ReplaceAll(ids, `""`, `"`), want) {
			t.Errorf("%s is not in %s", want, ids)
		}
	}
	if got := s.run(t, "ovs-vsctl", "list-ports", "br-int"); got != "qvo00000002-aa\ntap00000001-aa" {
		t.Errorf("ports: %q", got)
	}
	c, err := link.Open(s.ns, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{"tap00000001-aa", "tap00000002-aa", "qvb00000002-aa", "qvo00000002-aa"} {
		if l, err := c.ByName(name); err != nil || l.MTU != 1400 || !l.Up {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	// somebody takes everything of the hybrid port away
	for _, name := range []string{"qbr00000002-aa", "qvo00000002-aa"} {
		l, err := c.ByName(name)
		if err == nil {
			err = c.Delete(l.Index)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.run(t, "ovs-vsctl", "del-port", "qvo00000002-aa")
	if err := p.Set(t.Context(), plans[1]); err != nil {
		t.Fatal(err)
	}
	there()
	for _, plan := range plans {
		if err := p.Set(t.Context(), netbridge.Plan{Owner: plan.Owner}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.run(t, "ovs-vsctl", "list-ports", "br-int"); got != "" {
		t.Errorf("ports are left: %q", got)
	}
	links, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.Contains(l.Name, "0000000") {
			t.Errorf("device %s is left", l.Name)
		}
	}
}

// TestBridgeOfAnother: whose datapath a bridge has is what its database says;
// who bound the port (OVN) may not know it.
func TestBridgeOfAnother(t *testing.T) {
	s := startSwitch(t)
	s.run(t, "ovs-vsctl", "add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev")
	o := ovs.Options{Connection: s.connection, Dir: t.TempDir(), Timeout: time.Minute, HostNetNS: path(s.ns)}
	p := newPlugger(t, netbridge.New(netbridge.Options{HostNetNS: path(s.ns)}), o)
	a, b := newNS(t), newNS(t)
	for n, ns := range map[int]*os.File{1: a, 2: b} {
		plan := guest(n, ns, false)
		plan.Interfaces[0].OVS.Datapath = ""
		if err := p.Set(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "one guest reaches the other", func() error { return reach(a, b, netip.MustParseAddr("10.1.0.2")) })
}

// TestForeignDevice: what has the name of a part of a hybrid port and is
// somebody else's stays.
func TestForeignDevice(t *testing.T) {
	s := startSwitch(t)
	o := ovs.Options{Connection: s.connection, Dir: t.TempDir(), Timeout: time.Minute, HostNetNS: path(s.ns)}
	p := newPlugger(t, netbridge.New(netbridge.Options{HostNetNS: path(s.ns)}), o)
	c, err := link.Open(s.ns, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.AddBridge("qbr00000001-aa"); err != nil {
		t.Fatal(err)
	}
	l, err := c.ByName("qbr00000001-aa")
	if err == nil {
		err = c.Set(l.Index, link.Change{Alias: "somebody"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Set(t.Context(), guest(1, newNS(t), true)); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if err := p.Set(t.Context(), netbridge.Plan{Owner: "owner-1"}); err != nil {
		t.Error(err)
	}
	if l, err := c.ByName("qbr00000001-aa"); err != nil || l.Alias != "somebody" {
		t.Errorf("%+v, %v", l, err)
	}
}
