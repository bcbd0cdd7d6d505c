package main

import (
	"maps"
	"slices"
	"testing"
)

func TestVerbs(t *testing.T) {
	for name, v := range verbs() {
		if got := v().Name(); got != name {
			t.Errorf("the verb %q makes the command %q", name, got)
		}
	}
}

// The verb that is asked for is the only one that is made; without one all are.
func TestRootMakesWhatIsAskedFor(t *testing.T) {
	all := slices.Sorted(maps.Keys(verbs()))
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"runtime", "state", "x"}, []string{"runtime"}},
		{nil, all},
		{[]string{"--help"}, all},
		{[]string{"nonsense"}, all},
	} {
		var got []string
		for _, cmd := range root(c.args).Commands() {
			got = append(got, cmd.Name())
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("root(%q) has the verbs %q, want %q", c.args, got, c.want)
		}
	}
}
