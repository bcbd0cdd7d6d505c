// Package deptest asserts who may import whom. The rules are the table below;
// each carries the reason that a failing import is told.
package deptest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gantry-project/gantry/"

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// under reports whether path is dir or below it.
func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func anyUnder(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return under(path, d) })
}

// ours are rules about packages of this module: a package under from imports
// of ours only what is under allow.
var ours = []struct {
	from   string
	allow  []string
	reason string
}{
	// gantry runtime is no part of the service: the engine's own command line.
	{"cmd", []string{"mirror", "internal/roff", "internal/daemon", "internal/errdefs", "config", "engine/runtime", "engine/oci", "engine/api"}, "cmd is flags and exit codes, and the client of the engine's socket; concrete types meet in internal/daemon"},
	{"config", nil, "config is plain data for cmd, internal/daemon and functional"},
	{"driver/objects", []string{"driver/objects", "internal/errdefs"}, "versioned objects are a leaf"},
	{"driver/metadata", []string{"driver/metadata", "driver/objects", "internal/errdefs"}, "documents from rows"},
	{"driver/messaging", []string{"driver/messaging", "internal/errdefs", "internal/logging"}, "messaging knows targets and versions, nothing of objects"},
	{"driver/conductor", []string{"driver/conductor", "driver/messaging", "driver/objects", "internal/errdefs", "internal/logging"}, "a client of the wire"},
	{"driver/placement", []string{"driver/placement", "internal/openstack", "internal/errdefs", "internal/logging"}, "a REST client"},
	{"driver/neutron", []string{"driver/neutron", "driver/objects", "internal/openstack", "internal/errdefs", "internal/logging"}, "a REST client"},
	{"driver/compute", []string{"driver", "internal"}, "the compute service uses contracts and clients"},
	{"engine", []string{"engine", "internal"}, "the engine knows nothing of OpenStack"},
	{"console", []string{"console", "internal/errdefs", "internal/logging"}, "consoles are streams: whose is told by who opens them"},
	{"console/terminal", nil, "a leaf"},
	{"console/rfb", []string{"internal/errdefs"}, "a protocol over any screen"},
	{"glance", []string{"glance", "internal"}, "glance, engine and netbridge meet in driver/local"},
	{"netbridge", []string{"netbridge", "internal"}, "glance, engine and netbridge meet in driver/local"},
	{"engine/disk/filesystem/btrfs", []string{"engine/disk/filesystem", "internal/errdefs"}, "a parser needs no host"},
	{"engine/disk/filesystem/ext", []string{"engine/disk/filesystem", "internal/errdefs"}, "a parser needs no host"},
	{"engine/disk/filesystem/xfs", []string{"engine/disk/filesystem", "internal/errdefs"}, "a parser needs no host"},
	{"mirror", []string{"mirror", "internal"}, "the image service and the engine are interfaces to it"},
	{"internal/linux", []string{"internal/linux", "internal/errdefs"}, "system calls, once"},
	{"internal/readahead", nil, "a leaf"},
	{"internal/systemd", nil, "a leaf"},
	{"internal/roff", nil, "a leaf"},
	{"internal/optiondoc", []string{"internal/roff"}, "a reference from the source"},
	{"internal/metrics", nil, "a leaf"},
	{"internal/devcloud", []string{"internal/devcloud", "driver/metadata", "driver/messaging", "driver/objects", "internal/errdefs", "internal/logging", "internal/undo", "internal/keylock", "internal/atomicfile", "internal/failpoint"}, "the embedded cloud knows the wire and nothing of who is behind it"},
}

// never are imports that nobody outside allowed may have.
var never = []struct {
	path    string
	allowed []string
	reason  string
}{
	{module + "cmd", []string{"cmd"}, "nothing imports cmd"},
	{module + "config", []string{"cmd", "internal/daemon", "functional", "config"}, "packages take small option structs of their own"},
	{module + "driver/local", []string{"internal/daemon", "driver/local"}, "only the composition root names the real driver"},
	{module + "engine", []string{"engine", "driver/local", "internal/daemon", "cmd", "functional"}, "only driver/local says both instance and container"},
	{"github.com/spf13/viper", []string{"config"}, "viper appears in one package"},
	{"github.com/spf13/cobra", []string{"cmd"}, "the command line is cmd's"},
	{"github.com/rabbitmq/amqp091-go", []string{"driver/messaging/amqp", "functional"}, "the broker is behind Transport"},
	{"github.com/vishvananda/netlink", []string{"netbridge"}, "links are netbridge's"},
	{"golang.org/x/image", []string{"console/terminal"}, "fonts are the terminal's"},
	{"github.com/coder/websocket", []string{"internal/devcloud/consoles", "functional"}, "the proxy of the embedded cloud, and clients in tests"},
	{"github.com/miekg/dns", []string{"netbridge/dns", "netbridge/fabric"}, "names are netbridge/dns's"},
	{"github.com/insomniacslk/dhcp", []string{"netbridge"}, "packets of DHCP are netbridge/dhcp's"},
	{"github.com/coreos/go-iptables", []string{"netbridge/firewall"}, "the firewall is netbridge/firewall's"},
	{"github.com/google/nftables", []string{"netbridge/firewall", "netbridge/fabric"}, "the firewall is netbridge/firewall's"},
	{"github.com/mdlayher/netlink", []string{"netbridge/firewall"}, "the firewall is netbridge/firewall's"},
	{"github.com/gophercloud/gophercloud/v2", []string{"glance", "driver/neutron", "driver/placement", "internal/openstack", "functional"}, "REST clients only"},
	{"go.etcd.io/bbolt", []string{"engine/store"}, "records are the store's"},
	{"github.com/google/go-containerregistry", []string{"mirror"}, "registries are the mirror's"},
	{"modernc.org/sqlite", []string{"internal/devcloud/sqldb"}, "the embedded cloud's state is sqldb's"},
	{module + "internal/devcloud", []string{"internal/daemon", "internal/devcloud"}, "only the composition root joins the embedded cloud and a compute service"},
	{"github.com/rs/zerolog", nil, ""},
	{"unsafe", []string{"internal/linux", "engine/process", "engine/cgroup", "engine/snapshot", "engine/jail", "engine/layer", "engine/keeper"}, "raw system calls only"},
}

// noLogger are packages that return what happened and log nothing.
var noLogger = []string{"driver/objects", "engine/image", "engine/seccomp", "internal/errdefs", "internal/undo"}

func TestImportRules(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			checkOurs(t, from, imp)
			checkNever(t, from, imp)
		}
	}
}

func checkOurs(t *testing.T, from, imp string) {
	t.Helper()
	target, isOurs := strings.CutPrefix(imp, module)
	if !isOurs {
		return
	}
	for _, r := range ours {
		if !under(from, r.from) || (r.from == "driver/compute" && strings.HasSuffix(from, "test")) {
			continue
		}
		if !anyUnder(target, append(r.allow, r.from)) {
			t.Errorf("%s imports %s: %s", from, target, r.reason)
		}
	}
	if strings.HasSuffix(target, "test") && target != "internal/deptest" && !strings.HasSuffix(from, "test") && from != "functional" {
		t.Errorf("%s imports %s: suites are for tests", from, target)
	}
	if from == "driver" && target != "driver/objects" && target != "internal/errdefs" {
		t.Errorf("driver imports %s: the contract imports driver/objects only", target)
	}
}

func checkNever(t *testing.T, from, imp string) {
	t.Helper()
	for _, r := range never {
		if !under(imp, r.path) {
			continue
		}
		if imp == "github.com/rs/zerolog" {
			if slices.Contains(noLogger, from) {
				t.Errorf("%s imports a logger: it returns what happened", from)
			}
			continue
		}
		if !anyUnder(from, r.allowed) {
			t.Errorf("%s imports %s: %s", from, imp, r.reason)
		}
	}
}
