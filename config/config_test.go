package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const novaConf = `
[DEFAULT]
transport_url = rabbit://openstack:pa$$ss@127.0.0.1:5672/
my_ip = 192.0.2.5
state_path = /var/lib/nova
compute_driver = libvirt.LibvirtDriver
log_file = $state_path/log
debug: yes
report_interval =
vif_plugging_timeout = 60
[placement]
auth_url = http://127.0.0.1:5000/v3
username = placement
password = a%b;c#d
valid_interfaces = internal, public
[neutron]
auth_url = http://127.0.0.1:5000/v3
username = neutron
metadata_proxy_shared_secret = x
[keystone_authtoken]
auth_url = http://127.0.0.1:5000/v3
username = nova
[libvirt]
virt_type = lxc
`

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "nova.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLoadReadsANovaConfAsItIs(t *testing.T) {
	over := write(t, "[DEFAULT]\nhost = cmp1\n[gantry]\ncgroup = other\n")
	cfg, err := Load(Sources{
		Files:     []string{write(t, novaConf), over},
		Environ:   []string{"GANTRY_GANTRY_CONSOLE_LOG_BYTES=4096", "HOME=/root"},
		Overrides: []string{"DEFAULT.max_concurrent_builds=3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	checks := map[string][2]any{
		"host":       {cfg.Default.Host, "cmp1"},
		"url":        {cfg.Default.TransportURL, "rabbit://openstack:pa$ss@127.0.0.1:5672/"},
		"log file":   {cfg.Default.LogFile, "/var/lib/nova/log"},
		"debug":      {cfg.Default.Debug, true},
		"timeout":    {cfg.Default.VIFPluggingTimeout, time.Minute},
		"fatal":      {cfg.Default.VIFPluggingIsFatal, true},
		"password":   {cfg.Placement.Password, "a%b;c#d"},
		"interfaces": {strings.Join(cfg.Placement.ValidInterfaces, "|"), "internal|public"},
		"glance":     {cfg.Glance.Username, "nova"},
		"empty":      {cfg.Default.ReportInterval, 10 * time.Second},
		"cgroup":     {cfg.Gantry.CgroupName, "other"},
		"store":      {cfg.Gantry.StorePath, "/var/lib/nova/engine"},
		"env":        {cfg.Gantry.ConsoleLogBytes, int64(4096)},
		"override":   {cfg.Default.MaxConcurrentBuilds, 3},
		"grace":      {cfg.Gantry.StartGrace, 10 * time.Millisecond},
	}
	for name, c := range checks {
		if c[0] != c[1] {
			t.Errorf("%s: got %v, want %v", name, c[0], c[1])
		}
	}
}

func TestLoadRefusesBadSettingsByName(t *testing.T) {
	for name, tc := range map[string]struct{ text, section, key, problem string }{
		"unknown own key": {novaConf + "[gantry]\ncgrup = x\n", "gantry", "cgrup", "unknown key"},
		"wrong type":      {novaConf + "[gantry]\nconsole_log_bytes = big\n", "gantry", "console_log_bytes", `"big" is not an integer`},
		"wrong choice":    {novaConf + "[gantry]\ndisk_limit = some\n", "gantry", "disk_limit", "one of auto, quota, loop, none"},
		"wrong boolean":   {"[DEFAULT]\nvif_plugging_is_fatal = maybe\n" + novaConf, "DEFAULT", "vif_plugging_is_fatal", "boolean"},
		"missing value":   {strings.Replace(novaConf, "transport_url", "# ", 1), "DEFAULT", "transport_url", "missing"},
		"bad address":     {strings.Replace(novaConf, "192.0.2.5", "nowhere", 1), "DEFAULT", "my_ip", "not an IP address"},
		"relative state":  {strings.Replace(novaConf, "/var/lib/nova", "var", 1), "DEFAULT", "state_path", "absolute"},
		"no identity":     {"[DEFAULT]\ntransport_url = rabbit://\nmy_ip=127.0.0.1\n", "placement", "auth_url", "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, tc.text)
			_, err := Load(Sources{Files: []string{file}})
			ce, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("got %v, want an *Error", err)
			}
			if ce.Section != tc.section || ce.Key != tc.key || !strings.Contains(ce.Problem, tc.problem) {
				t.Errorf("got %v", ce)
			}
			if ce.File != file && !strings.Contains(tc.problem, "missing") && ce.File != "" {
				t.Errorf("file %q, want %q", ce.File, file)
			}
		})
	}
}

func TestLoadRefusesUnknownOverride(t *testing.T) {
	_, err := Load(Sources{Files: []string{write(t, novaConf)}, Overrides: []string{"gantry.nothing=1"}})
	if err == nil || !strings.Contains(err.Error(), "command line") {
		t.Fatalf("got %v", err)
	}
}

func TestWriteIsReadableAndKeepsSecrets(t *testing.T) {
	cfg, err := Load(Sources{Files: []string{write(t, novaConf)}})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := cfg.Write(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "a%b") || strings.Contains(out.String(), "pa$ss") {
		t.Error("a secret was printed")
	}
	again, err := Load(Sources{Files: []string{write(t, out.String())}})
	if err != nil {
		t.Fatal(err)
	}
	if again.Default.Host != cfg.Default.Host || again.Gantry != cfg.Gantry {
		t.Error("the printed configuration reads back differently")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(novaConf)
	f.Add("[gantry\n=")
	f.Add("[DEFAULT]\na=$a\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := Load(Sources{Files: []string{write(t, text)}})
		if (cfg == nil) == (err == nil) {
			t.Fatal("exactly one of configuration and error must be returned")
		}
	})
}

func TestChanges(t *testing.T) {
	load := func(set ...string) *Config {
		cfg, err := Load(Sources{Files: []string{write(t, novaConf)}, Overrides: set})
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	if got := load().Changes(load()); len(got) != 0 {
		t.Errorf("%v changed by nothing", got)
	}
	got := load().Changes(load("neutron.password=other", "DEFAULT.debug=false", "vnc.auth_schemes=none,vencrypt"))
	if strings.Join(got, " ") != "DEFAULT.debug neutron.password vnc.auth_schemes" {
		t.Errorf("changed: %v", got)
	}
}
