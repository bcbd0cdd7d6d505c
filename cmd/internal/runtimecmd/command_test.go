package runtimecmd

import (
	"maps"
	"slices"
	"testing"
)

func TestVerbs(t *testing.T) {
	for name, v := range runtimeVerbs() {
		if got := v(&runtimeFlags{}).Name(); got != name {
			t.Errorf("the verb %q makes the command %q", name, got)
		}
	}
}

// The verb that is asked for is the only one that is made; without one all are.
func TestCommandMakesWhatIsAskedFor(t *testing.T) {
	all := slices.Sorted(maps.Keys(runtimeVerbs()))
	for _, c := range []struct{ args, want []string }{
		{[]string{"--root", "/r", "state", "x"}, []string{"state"}},
		{[]string{"--root", "run", "delete", "x"}, []string{"delete", "run"}},
		{nil, all},
		{[]string{"--help"}, all},
	} {
		var got []string
		for _, verb := range Command("runtime", c.args).Commands() {
			got = append(got, verb.Name())
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: verbs %q, want %q", c.args, got, c.want)
		}
	}
}
