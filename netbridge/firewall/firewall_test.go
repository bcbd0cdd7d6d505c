package firewall

import (
	"fmt"
	"strings"
	"testing"
)

func TestChange(t *testing.T) {
	c := Chain{Table: "filter", Hook: "FORWARD", Name: "gantry-x", Rules: [][]string{{"-i", "a", "-j", "DROP"}, {"-j", "RETURN"}}}
	gone := Chain{Table: "filter", Hook: "FORWARD", Name: "gantry-x"}
	rules := ":gantry-x - [0:0]\n-A gantry-x -i a -j DROP\n-A gantry-x -m comment --comment " + c.sum() + " -j RETURN\n"
	hooked := "-I FORWARD 1 -j gantry-x\n"
	complete := ":gantry-x - [0:0]\n-A gantry-x -i a -j DROP\n-A gantry-x -m comment --comment \"" + c.sum() + "\" -j RETURN\n"
	for name, test := range map[string]struct {
		have string
		want Chain
		text string
	}{
		"nothing":          {":FORWARD ACCEPT [0:0]\n", c, rules + hooked},
		"complete":         {":FORWARD ACCEPT [0:0]\n" + complete + "-A FORWARD -j gantry-x\n", c, ""},
		"behind ours":      {":FORWARD ACCEPT [0:0]\n" + complete + "-A FORWARD -j gantry-y\n-A FORWARD -j gantry-x\n-A FORWARD -j ACCEPT\n", c, ""},
		"behind others":    {":FORWARD ACCEPT [0:0]\n" + complete + "-A FORWARD -j DOCKER\n-A FORWARD -j gantry-x\n", c, rules + "-D FORWARD -j gantry-x\n" + hooked},
		"behind no target": {":FORWARD ACCEPT [0:0]\n" + complete + "-A FORWARD -p tcp\n-A FORWARD -j gantry-x\n", c, rules + "-D FORWARD -j gantry-x\n" + hooked},
		"twice":            {":FORWARD ACCEPT [0:0]\n" + complete + "-A FORWARD -j gantry-x\n-A FORWARD -j gantry-x\n", c, rules + "-D FORWARD -j gantry-x\n-D FORWARD -j gantry-x\n" + hooked},
		"flushed":          {":FORWARD ACCEPT [0:0]\n:gantry-x - [0:0]\n", c, rules + hooked},
		"one rule less":    {":FORWARD ACCEPT [0:0]\n" + strings.Replace(complete, "-A gantry-x -i a -j DROP\n", "", 1) + "-A FORWARD -j gantry-x\n", c, rules},
		"not wanted":       {":FORWARD ACCEPT [0:0]\n" + complete + "-A FORWARD -j gantry-x\n", gone, ":gantry-x - [0:0]\n-D FORWARD -j gantry-x\n-X gantry-x\n"},
		"not there":        {":FORWARD ACCEPT [0:0]\n", gone, ""},
	} {
		want := test.text
		if want != "" {
			want = "*filter\n" + want + "COMMIT\n"
		}
		if got := parse("# comment\n*filter\n" + test.have + "COMMIT\n").change([]Chain{test.want}); got != want {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
	}
}

func TestJumpsOfFrames(t *testing.T) {
	at, first := jumps(strings.Split("Bridge table: nat\n\nBridge chain: PREROUTING, entries: 2, policy: ACCEPT\n-p ARP -j ACCEPT\n-j gantry-sg-x\n", "\n"), "gantry-sg-x")
	if got := fmt.Sprint(at, first); got != "[2] false" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j x\nCOMMIT\n", "x")
	f.Add("-A\n:\n*\n-A  -j", "")
	f.Fuzz(func(_ *testing.T, text, chain string) {
		c := Chain{Table: "filter", Hook: "FORWARD", Name: chain}
		parse(text).change([]Chain{c})
		jumps(strings.Split(text, "\n"), chain)
	})
}
