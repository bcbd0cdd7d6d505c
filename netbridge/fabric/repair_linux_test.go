package fabric_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/netbridge/fabric"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// run runs a program as somebody else would.
func (h *host) run(words ...string) string {
	h.t.Helper()
	var out []byte
	h.ok(netns.Do(h.ns, func() (err error) {
		if out, err = exec.CommandContext(h.t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil { //nolint:gosec // the test's own
			err = fmt.Errorf("%v: %w: %s", words, err, out)
		}
		return err
	}))
	return string(out)
}

// all is everything that the host filters by, in the order in which it does, and
// its devices.
func (h *host) all() string {
	h.t.Helper()
	var w strings.Builder
	for _, program := range []string{"iptables-save", "ip6tables-save", "ebtables-save"} {
		for line := range strings.Lines(h.run(program)) {
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") {
				w.WriteString(line)
			}
		}
	}
	w.WriteString(h.tables())
	w.WriteString(h.run("ipset", "-s", "save"))
	links, err := h.conn(h.ns).List()
	h.ok(err)
	slices.SortFunc(links, func(a, b link.Link) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range links {
		fmt.Fprintln(&w, l.Name, l.Kind, l.Alias, l.MTU, l.Up, l.Master != 0)
	}
	return w.String()
}

// sorted is all without order: chains and jumps that are made anew may stand
// elsewhere.
func sorted(text string) string {
	lines := slices.Sorted(strings.Lines(text))
	return strings.Join(lines, "")
}

// strangers puts rules, chains, sets and bridges of somebody else beside ours,
// before and after.
func (h *host) strangers() {
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"raw", "filter", "nat"} {
			h.run(program, "-t", table, "-N", "STRANGER")
		}
	}
	h.run("ebtables", "-t", "nat", "-N", "STRANGER")
	h.strangerRules()
	h.run("ipset", "create", "stranger", "hash:ip")
	h.run("ipset", "add", "stranger", "192.0.2.1")
	h.run("ip", "link", "add", "brstranger", "type", "bridge")
}

// strangerRules are what a flush takes of them.
func (h *host) strangerRules() {
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"raw", "filter", "nat"} {
			h.run(program, "-t", table, "-A", "STRANGER", "-p", "tcp", "--dport", "22", "-j", "RETURN")
			hook := map[string]string{"raw": "PREROUTING", "filter": "FORWARD", "nat": "POSTROUTING"}[table]
			h.run(program, "-t", table, "-A", hook, "-j", "STRANGER")
			h.run(program, "-t", table, "-A", hook, "-p", "udp", "--dport", "9", "-j", "RETURN")
		}
	}
	h.run("ebtables", "-t", "nat", "-A", "PREROUTING", "-j", "STRANGER")
}

func TestRepair(t *testing.T) {
	t.Setenv(programs, "yes")
	h := newHost(t)
	h.strangers()
	before := h.all()
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	one := h.tenant(11)
	gs := h.guests(2)
	h.ok(h.fabric.SetGroup(t.Context(), fabric.Group{ID: "all", Members: []netip.Prefix{netip.MustParsePrefix(gs[0].ip + "/32")}}))
	made := h.all()
	dispatch, port := "", "gantry-i-"+gs[0].port.ID[:11]
	for line := range strings.Lines(made) {
		if words := strings.Fields(line); strings.HasPrefix(line, "-A FORWARD -j gantry-sg-") {
			dispatch = words[3]
		}
	}
	chain := func(hook string) string { // of the network
		for line := range strings.Lines(made) {
			if words := strings.Fields(line); strings.HasPrefix(line, "-A "+hook+" -j gantry-") && words[3] != dispatch && !strings.Contains(line, "gantry-sg-") {
				return words[3]
			}
		}
		t.Fatal("no chain of a network at " + hook)
		return ""
	}
	set := strings.Fields(h.run("ipset", "-n", "list"))
	group := set[slices.IndexFunc(set, func(s string) bool { return strings.Contains(s, "-4") })]
	h.ok(h.fabric.Repair(t.Context()))
	if again := h.all(); again != made {
		t.Errorf("what held was changed:\n%s\nbefore:\n%s", again, made)
	}
	for _, undo := range [][]string{
		{"iptables", "-F", port},
		{"iptables", "-D", port, "1"},
		{"iptables", "-I", port, "1", "-j", "ACCEPT"},
		{"ip6tables", "-R", port, "1", "-j", "ACCEPT"}, // as many as before
		{"iptables", "-D", "FORWARD", "-j", dispatch},
		{"ip6tables", "-D", "INPUT", "-j", dispatch + "-in"},
		{"iptables", "-F", dispatch},
		{"ebtables", "-t", "nat", "-F", "gantry-o-" + gs[0].port.ID[:11]},
		{"ebtables", "-t", "nat", "-F", dispatch},
		{"ebtables", "-t", "nat", "-D", "PREROUTING", "-j", dispatch},
		{"iptables", "-t", "raw", "-F", chain("PREROUTING")},
		{"iptables", "-t", "nat", "-D", "POSTROUTING", "-j", chain("POSTROUTING")},
		{"iptables", "-F", chain("INPUT")},
		{"ipset", "flush", group},
		{"ip", "link", "set", lan, "down"},
		{"ip", "link", "set", "tap00000011-ee", "nomaster"},
		{"ip", "link", "del", "tap00000011-ee"}, // where the network is served
		{"ip", "link", "del", "tap00000011-aa"}, // the router's
	} {
		h.run(undo...)
		if now := h.all(); now == made {
			t.Errorf("%v changed nothing", undo)
		}
		h.ok(h.fabric.Repair(t.Context()))
		if again := h.all(); sorted(again) != sorted(made) {
			t.Fatalf("after %v:\n%s\nbefore:\n%s", undo, again, made)
		}
	}
	// Rules of others before ours.
	h.run("iptables", "-I", "FORWARD", "1", "-p", "udp", "--dport", "77", "-j", "ACCEPT")
	h.run("ebtables", "-t", "nat", "-I", "PREROUTING", "-p", "ARP", "-j", "ACCEPT")
	h.ok(h.fabric.Repair(t.Context()))
	text := h.all()
	if a, b := strings.Index(text, "-A FORWARD -j "+dispatch), strings.Index(text, "--dport 77"); a < 0 || b < 0 || a > b {
		t.Errorf("behind somebody else's:\n%s", text)
	}
	if a, b := strings.Index(text, "-A PREROUTING -j "+dispatch), strings.Index(text, "-A PREROUTING -p ARP -j ACCEPT"); a < 0 || b < 0 || a > b {
		t.Errorf("behind somebody else's:\n%s", text)
	}
	h.run("iptables", "-D", "FORWARD", "-p", "udp", "--dport", "77", "-j", "ACCEPT")
	h.run("ebtables", "-t", "nat", "-D", "PREROUTING", "-p", "ARP", "-j", "ACCEPT")
	// All at once, with those of others; theirs are not ours to mend.
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"raw", "filter", "nat"} {
			h.run(program, "-t", table, "-F")
		}
	}
	h.run("ebtables", "-t", "nat", "-F")
	h.ok(h.fabric.Repair(t.Context()))
	ours := func(text string) string {
		return sorted(strings.Join(slices.DeleteFunc(slices.Collect(strings.Lines(text)), func(line string) bool {
			return strings.Contains(line, "STRANGER") || strings.Contains(line, "--dport 9 ") || strings.Contains(line, "--dport 22 ")
		}), ""))
	}
	if again := h.all(); ours(again) != ours(made) || strings.Contains(again, "-j STRANGER") {
		t.Errorf("after a flush:\n%s\nbefore:\n%s", again, made)
	}
	h.strangerRules()
	// It works, and leaves nothing but what was there.
	h.seenAs("a member of the group", gs[0].ns, gs[1].ip+":80", gs[0].ip)
	h.serve(h.outside, "198.51.100.1:80")
	h.seenAs("to the world", one.guest, "198.51.100.1:80", "198.51.100.2")
	h.unplug(one.network.ID, gs[0].port.ID, gs[1].port.ID)
	h.ok(h.fabric.Sync(t.Context(), fabric.World{}))
	if after := h.all(); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

// A change that was cut off may have left a second jump; nothing is left of either.
func TestNothingIsLeftOfAJumpThatIsThereTwice(t *testing.T) {
	t.Setenv(programs, "yes")
	h := newHost(t)
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	h.tenant(11)
	h.guests(1)
	for _, program := range []string{"iptables", "ip6tables"} {
		for line := range strings.Lines(h.run(program, "-S")) {
			words := strings.Fields(line)
			if len(words) == 4 && words[0] == "-A" && (words[1] == "FORWARD" || words[1] == "INPUT") && strings.HasPrefix(words[3], "gantry-sg-") {
				h.run(program, "-I", words[1], "1", "-j", words[3])
			}
		}
	}
	h.ok(h.cloud("one").Sync(t.Context(), fabric.World{}))
	for _, program := range []string{"iptables", "ip6tables"} {
		if left := h.run(program, "-S"); strings.Contains(left, "gantry-") {
			t.Errorf("left:\n%s", left)
		}
	}
}
