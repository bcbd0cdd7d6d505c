package doctor

import (
	"bufio"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// module is a part of the kernel that may be a module.
type module struct {
	name, option string // of the configuration
	level        Level
	costs        string
}

// modules are those that links and filters need; the others have checks of their own.
var modules = []module{
	{"veth", "VETH", Fail, "instances have no interfaces; none with a network can start"},
	{"bridge", "BRIDGE", Warn, "no ports of Linux bridge networks, and none with the hybrid filter of Open vSwitch"},
	{"br_netfilter", "BRIDGE_NETFILTER", Note, "security groups of Neutron's Linux bridge agent filter nothing; others do not need it"},
	{"nf_tables", "NF_TABLES", Warn, "networks of gantry cloud are filtered by programs instead, which is slower"},
	{"ifb", "IFB", Note, "no limits of what a port receives (QoS policies)"},
	{"tun", "TUN", Note, "no VPNs inside of instances; Neutron's agents may want it"},
	{"vxlan", "VXLAN", Note, "Neutron's agents have no overlay networks on this host; VLAN and flat ones they have"},
}

func moduleChecks() []Check {
	checks := make([]Check, 0, len(modules))
	for _, m := range modules {
		checks = append(checks, Check{
			"module " + m.name, m.costs, "modprobe " + m.name + ", and its name into /etc/modules-load.d/gantry.conf; or a kernel with CONFIG_" + m.option, m.check,
		})
	}
	return checks
}

// check looks for a module that is loaded, built in, or can be loaded. Where
// neither directory nor configuration of the kernel is there, nobody knows.
func (m module) check(_ context.Context, h *Host) (Level, string) {
	if h.exists("sys/module/" + m.name) {
		return OK, "in the kernel"
	}
	release, err := h.read("proc/sys/kernel/osrelease")
	if err != nil {
		return m.level, err.Error()
	}
	release = path.Base(release) // a name of a directory
	known := false
	for _, list := range []struct{ file, found string }{{"modules.builtin", "built in"}, {"modules.dep", "can be loaded"}} {
		text, err := h.read(filepath.Join("lib/modules", release, list.file))
		if err != nil {
			continue
		}
		known = true
		if lists(text, m.name) {
			return OK, list.found
		}
	}
	if value, ok := h.kernelOption(release, "CONFIG_"+m.option); ok && value == "y" {
		return OK, "built in"
	} else if ok || known {
		return m.level, "neither in the kernel nor to be loaded"
	}
	return Note, "not to be found out: neither /lib/modules/" + release + " nor the kernel's configuration is there"
}

// lists reports whether a list of modules has a file of that module; in
// modules.dep what it depends on comes after a colon.
func lists(text, name string) bool {
	for line := range strings.Lines(text) {
		file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		base, _, _ := strings.Cut(path.Base(file), ".ko")
		if strings.ReplaceAll(base, "-", "_") == name {
			return true
		}
	}
	return false
}

// kernelOption reads an option of the kernel's configuration, "" when it is not set.
func (h *Host) kernelOption(release, option string) (value string, ok bool) {
	for _, name := range []string{"proc/config.gz", "boot/config-" + release} {
		f, err := os.Open(filepath.Join(h.Root, name))
		if err != nil {
			continue
		}
		defer f.Close()
		var r io.Reader = f
		if strings.HasSuffix(name, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				continue
			}
		}
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if v, found := strings.CutPrefix(lines.Text(), option+"="); found {
				return v, true
			}
		}
		return "", true
	}
	return "", false
}
