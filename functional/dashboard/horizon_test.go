//go:build functional

package dashboard

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// settings are Debian's with what an operator has to say, and nothing of the system
// is changed: sessions are in memory, the log goes to standard error.
const settings = `from openstack_dashboard.settings import *  # noqa
ALLOWED_HOSTS = ['127.0.0.1']
OPENSTACK_KEYSTONE_URL = '%s/identity/v3'
SECRET_KEY = 'of this test only'
SESSION_ENGINE = 'django.contrib.sessions.backends.cache'
LOGGING = {'version': 1, 'disable_existing_loggers': False,
           'formatters': {'told': {'format': 'HORIZON %%(levelname)s %%(name)s: %%(message)s'}},
           'handlers': {'log': {'class': 'logging.StreamHandler', 'formatter': 'told', 'level': 'ERROR'}}, 'root': {'handlers': ['log']}}
`

const wsgi = `import os
os.environ['DJANGO_SETTINGS_MODULE'] = 'gantry_test_settings'
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
`

// static is where Debian's package keeps what it has collected and compressed.
const static = "/var/lib/openstack-dashboard/static"

// horizon is Debian's Horizon under uwsgi, on a port of the loopback.
type horizon struct {
	url, log string
}

// startHorizon starts one for that identity service and ends it with the test.
func startHorizon(t *testing.T, identity string) horizon {
	t.Helper()
	for _, path := range []string{static + "/dashboard/manifest.json", "/usr/bin/uwsgi"} {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("install openstack-dashboard, uwsgi-core and uwsgi-plugin-python3 (make deps): %v", err)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"gantry_test_settings.py": fmt.Sprintf(settings, identity), "wsgi.py": wsgi} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := horizon{log: filepath.Join(dir, "horizon.log")}
	log, err := os.Create(h.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	address := freeAddress(t)
	h.url = "http://" + address
	cmd := exec.Command("uwsgi", "--plugin", "python3", "--http-socket", address, "--wsgi-file", "wsgi.py", "--static-map", "/static="+static,
		"--master", "--processes", "1", "--threads", "4", "--enable-threads", "--need-app", "--die-on-term", "--buffer-size", "65535", "--disable-logging")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir, "HOME="+dir, "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of Horizon:\n%s", h.said(t))
		}
	})
	cloudtest.Eventually(t, "Horizon answers", func() (bool, error) {
		r, err := http.Get(h.url + "/auth/login/") //nolint:noctx // bounded by Eventually
		if err != nil {
			return false, fmt.Errorf("%w: %s", err, h.said(t))
		}
		return r.StatusCode == http.StatusOK, r.Body.Close()
	})
	return h
}

// said is what Horizon has told of errors, with their tracebacks, and nothing of
// what Python says of deprecations.
func (h horizon) said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(h.log)
	if err != nil {
		t.Fatal(err)
	}
	_, told, _ := strings.Cut(string(text), "HORIZON ")
	var lines strings.Builder
	for line := range strings.Lines(told) {
		if !strings.Contains(line, "Warning: ") && !strings.Contains(line, " warnings.warn(") {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

// freeAddress is one of the loopback where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // returns at once
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
