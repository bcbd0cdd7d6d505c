package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager is the socket of a service manager, with its address in the
// environment.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return conn
}

func heard(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 4096)
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestSend(t *testing.T) {
	dir, err := os.MkdirTemp("", "sd") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, name := range []string{filepath.Join(dir, "notify"), "@gantry-test-" + strconv.Itoa(os.Getpid())} {
		conn := manager(t, name)
		t.Setenv("WATCHDOG_USEC", "30000000")
		t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
		n, err := FromEnvironment()
		if err != nil || n.Watchdog() != 30*time.Second {
			t.Fatalf("%v, %v", n.Watchdog(), err)
		}
		for _, left := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			if _, set := os.LookupEnv(left); set {
				t.Errorf("%s is left for children", left)
			}
		}
		if err := n.Send(Ready, Status("two\nlines")); err != nil {
			t.Fatal(err)
		}
		if got := heard(t, conn); got != "READY=1\nSTATUS=two lines" {
			t.Errorf("said %q", got)
		}
		if err := n.Send(Reloading()); err != nil {
			t.Fatal(err)
		}
		if got := heard(t, conn); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
			t.Errorf("said %q", got)
		}
		conn.Close()
		if err := n.Send(Alive); err == nil {
			t.Error("nobody listens, and no error")
		}
	}
}

func TestEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		socket, usec, pid string
		watchdog          time.Duration
		speaks, refused   bool
	}{
		"nobody":               {},
		"no watchdog":          {socket: "/run/x", speaks: true},
		"of another process":   {socket: "/run/x", usec: "1000000", pid: "1", speaks: true},
		"of nobody by name":    {socket: "/run/x", usec: "1000000", watchdog: time.Second, speaks: true},
		"vsock":                {socket: "vsock:2:1", refused: true},
		"a watchdog of nought": {socket: "/run/x", usec: "0", refused: true},
		"a watchdog of words":  {socket: "/run/x", usec: "soon", refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NOTIFY_SOCKET", c.socket)
			t.Setenv("WATCHDOG_USEC", c.usec)
			t.Setenv("WATCHDOG_PID", c.pid)
			n, err := FromEnvironment()
			if (err != nil) != c.refused || (n != nil) != c.speaks || n.Watchdog() != c.watchdog {
				t.Errorf("%+v, %v", n, err)
			}
		})
	}
	if err := (*Notifier)(nil).Send(Ready); err != nil {
		t.Error(err)
	}
}
