package compute_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
)

// consoles gives each console a port while its instance runs.
type consoles struct {
	drv driver.ConsoleStreamer

	mu   sync.Mutex
	open map[string]int // guarded by mu, by instance and kind
}

func (c *consoles) Serve(ctx context.Context, uuid string, kind compute.ConsoleKind) (string, int, error) {
	s, err := c.drv.OpenConsole(ctx, driver.InstanceUUID(uuid))
	if err != nil {
		return "", 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := uuid + string(kind)
	if c.open[key] == 0 {
		c.open[key] = 5900 + len(c.open)
	}
	return "192.0.2.7", c.open[key], s.Close()
}

func (c *consoles) Serves(uuid string, kind compute.ConsoleKind, port int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return port != 0 && c.open[uuid+string(kind)] == port
}

func (c *consoles) Drop(uuid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.open {
		if strings.HasPrefix(key, uuid) {
			delete(c.open, key)
		}
	}
}

func TestRemoteConsoles(t *testing.T) {
	r := newRig(t, noWait, func(o *compute.Options) {
		o.VNCBaseURL, o.SerialBaseURL = "http://proxy/vnc_auto.html", "ws://proxy/"
	})
	inst := r.active()
	id := inst.String("uuid")
	rc := r.context(id, "console")
	type info struct {
		Host, Token string
		Port        int
		URL         string  `json:"access_url"`
		Path        *string `json:"internal_access_path"`
	}
	ask := func(method, kind string) (out info, err error) {
		err = r.call(rc, method, map[string]any{"instance": r.row(inst), "console_type": kind}, &out)
		return out, err
	}
	valid := func(port, kind string) bool {
		var ok bool
		if err := r.call(rc, "validate_console_port", map[string]any{"instance": r.row(inst), "port": port, "console_type": kind}, &ok); err != nil {
			t.Errorf("validate_console_port: %v", err)
		}
		return ok
	}
	vnc, err := ask("get_vnc_console", "novnc")
	if err != nil || vnc.Host != "192.0.2.7" || vnc.Port != 5900 || vnc.Path != nil || vnc.Token == "" ||
		vnc.URL != "http://proxy/vnc_auto.html?path=%3Ftoken%3D"+vnc.Token {
		t.Errorf("VNC console %+v, %v", vnc, err)
	}
	serial, err := ask("get_serial_console", "serial")
	if err != nil || serial.Port != 5901 || serial.Token == vnc.Token || serial.URL != "ws://proxy/?token="+serial.Token {
		t.Errorf("serial console %+v, %v", serial, err)
	}
	for _, tc := range []struct {
		port, kind string
		want       bool
	}{{"5900", "novnc", true}, {"5901", "serial", true}, {"5901", "novnc", false}, {"5900", "spice-html5", false}, {"1", "novnc", false}} {
		if got := valid(tc.port, tc.kind); got != tc.want {
			t.Errorf("port %s for %s is valid: %t", tc.port, tc.kind, got)
		}
	}
	for _, tc := range []struct{ method, kind, class string }{
		{"get_vnc_console", "xvpvnc", "ConsoleTypeInvalid"},
		{"get_spice_console", "spice-html5", "ConsoleTypeUnavailable"},
		{"get_rdp_console", "rdp-html5", "ConsoleTypeUnavailable"},
		{"get_mks_console", "webmks", "ConsoleTypeUnavailable"},
	} {
		if _, err := ask(tc.method, tc.kind); !messaging.IsRemote(err, tc.class) {
			t.Errorf("%s of %s: %v, want %s", tc.method, tc.kind, err, tc.class)
		}
	}
	r.ask(inst, "stop", "powering-off", "stop_instance", nil)
	r.waitState(inst, "stopped")
	if _, err := ask("get_serial_console", "serial"); !messaging.IsRemote(err, "InstanceNotReady") {
		t.Errorf("of a stopped instance: %v", err)
	}
	r.ask(inst, "delete", "deleting", "terminate_instance", nil)
	r.wantDeleted(inst)
	if r.consoles.Serves(id, compute.ConsoleVNC, 5900) {
		t.Error("the port of a deleted instance stays")
	}
}
