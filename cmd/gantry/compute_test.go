package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/metrics/metricstest"
)

// service is a compute service whose control plane is away, below a service
// manager.
type service struct {
	t           *testing.T
	cmd         *exec.Cmd
	dir, config string
	manager     *net.UnixConn
}

// configure writes the file; nobody listens at the broker's address.
func (s *service) configure(more string) {
	check(s.t, os.WriteFile(s.config, []byte(`[DEFAULT]
transport_url = rabbit://openstack:secret1@127.0.0.1:1/
my_ip = 127.0.0.1
host = cmp1
rpc_response_timeout = 1
state_path = `+s.dir+`
log_file = `+s.dir+`/log
[keystone_authtoken]
auth_url = http://127.0.0.1:1/v3
username = nova
password = secret2
[vnc]
enabled = false
[oslo_reports]
log_dir = `+s.dir+`/reports
[gantry]
metrics_listen = 127.0.0.1:0
cgroup = gantry-test-`+filepath.Base(s.dir)+"\n"+more), 0o600))
}

func newService(t *testing.T) *service {
	t.Helper()
	name, err := binary()
	check(t, err)
	dir, err := os.MkdirTemp("", "sv") // a socket's path must be short
	check(t, err)
	s := &service{t: t, dir: dir, config: filepath.Join(dir, "nova.conf")}
	check(t, os.Mkdir(filepath.Join(dir, "reports"), 0o700))
	socket := filepath.Join(dir, "notify")
	s.manager, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	check(t, err)
	s.configure("")
	s.cmd = exec.Command(name, "compute", "--config-file", s.config)
	s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	check(t, s.cmd.Start())
	t.Cleanup(s.end)
	return s
}

// end ends what is left of it.
func (s *service) end() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
	s.manager.Close()
	if pid, err := os.ReadFile(filepath.Join(s.dir, "engine", "keeper.pid")); err == nil {
		stopKeeper(s.t, string(pid))
	}
	trees, err := filepath.Glob("/sys/fs/cgroup/*/gantry-test-" + filepath.Base(s.dir))
	check(s.t, err)
	for _, dir := range append(trees, "/sys/fs/cgroup/gantry-test-"+filepath.Base(s.dir)) {
		_ = os.Remove(dir)
	}
	check(s.t, os.RemoveAll(s.dir))
}

// hear reads messages to the service manager until one has that beginning.
func (s *service) hear(want string) {
	s.t.Helper()
	check(s.t, s.manager.SetReadDeadline(time.Now().Add(2*time.Minute)))
	buf := make([]byte, 4096)
	for {
		n, err := s.manager.Read(buf)
		if err != nil {
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Fatalf("%q was not heard: %v; log:\n%s", want, err, text)
		}
		if strings.HasPrefix(string(buf[:n]), want) {
			return
		}
	}
}

func (s *service) signal(sig syscall.Signal) { check(s.t, s.cmd.Process.Signal(sig)) }

// file waits for one of a pattern that has a text in it.
func (s *service) file(pattern, text string) string {
	s.t.Helper()
	var found string
	await(s.t, pattern+" with "+text, func() bool {
		names, err := filepath.Glob(filepath.Join(s.dir, pattern))
		check(s.t, err)
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err == nil && strings.Contains(string(content), text) {
				found = string(content)
				return true
			}
		}
		return false
	})
	return found
}

// scrape asks for metrics as Prometheus does.
func (s *service) scrape() {
	s.t.Helper()
	_, rest, _ := strings.Cut(s.metricsLine(), `"address":"`)
	address, _, _ := strings.Cut(rest, `"`)
	client := &http.Client{Timeout: time.Minute}
	response, err := client.Get("http://" + address + "/metrics")
	check(s.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(s.t, err)
	families, err := metricstest.Parse(string(text))
	if err != nil || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		s.t.Fatalf("%v, %v\n%s", response.Header, err, text)
	}
	for name, want := range map[string][2]any{
		"gantry_keeper_up":                  {"", 1.0},
		"gantry_broker_connection_up":       {`{connection="consume"}`, 0.0},
		"gantry_instances":                  {`{state="running"}`, 0.0},
		"gantry_image_cache_bytes":          {"", 0.0},
		"gantry_image_cache_images":         {"", 0.0},
		"gantry_engine_starts_total":        {"", 0.0},
		"gantry_console_viewers":            {"", 0.0},
		"gantry_build_info":                 {`{version="unknown",go="` + runtime.Version() + `"}`, 1.0},
		"gantry_operation_duration_seconds": {},
		"gantry_rpc_received_total":         {},
		"gantry_rpc_failed_total":           {},
		"gantry_placement_updates_total":    {},
		"gantry_image_requests_total":       {},
	} {
		f := families[name]
		if f == nil || f.Help == "" {
			s.t.Errorf("no %s", name)
			continue
		}
		if want[0] != nil && f.Samples[want[0].(string)] != want[1] {
			s.t.Errorf("%s: %v", name, f.Samples)
		}
		delete(families, name)
	}
	if len(families) != 0 {
		s.t.Errorf("more than is known: %v", families)
	}
}

// metricsLine is the line of the log that says where metrics are.
func (s *service) metricsLine() string {
	for line := range strings.Lines(s.file("log", "metrics are served")) {
		if strings.Contains(line, "metrics are served") {
			return line
		}
	}
	return ""
}

func TestServiceAndItsManager(t *testing.T) {
	s := newService(t)
	s.hear("STATUS=starting: register")

	s.signal(syscall.SIGUSR2)
	// the stacks are its end
	report := s.file("reports/gantry-compute_gurumeditation_*", "goroutine ")
	for _, want := range []string{
		"==== gantry\nversion ", "host cmp1", "\npassword = ***", "\ntransport_url = ***", "==== Containers\n0 in all\n",
		"==== Connections to the broker\npublish: up=false, ", "==== Keeper\nanswers: {Version:", "==== Goroutines\n",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("no %q in the report:\n%.3000s", want, report)
		}
	}
	if strings.Contains(report, "secret1") || strings.Contains(report, "secret2") {
		t.Error("a secret is in the report")
	}

	s.scrape()

	check(t, os.Rename(filepath.Join(s.dir, "log"), filepath.Join(s.dir, "log.1")))
	s.configure("max_consoles = 3\n[DEFAULT]\ndebug = true\n")
	s.signal(syscall.SIGHUP)
	s.hear("RELOADING=1\nMONOTONIC_USEC=")
	s.file("log", `"changed":["DEFAULT.debug","gantry.max_consoles"],"after_restart":["gantry.max_consoles"]`)

	s.configure("unknown = 1\n")
	s.signal(syscall.SIGHUP)
	s.hear("RELOADING=1")
	s.file("log", `[gantry] unknown: unknown key`)

	s.signal(syscall.SIGTERM)
	s.hear("STOPPING=1")
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}
