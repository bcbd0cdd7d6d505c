package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

func TestVerbs(t *testing.T) {
	for name, v := range verbs(nil) {
		if got := v().Name(); got != name {
			t.Errorf("the verb %q makes the command %q", name, got)
		}
	}
}

// The verb that is asked for is the only one that is made; without one all are.
func TestRootMakesWhatIsAskedFor(t *testing.T) {
	all := slices.Sorted(maps.Keys(verbs(nil)))
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"runtime", "state", "x"}, []string{"runtime"}},
		{nil, all},
		{[]string{"--help"}, all},
		{[]string{"nonsense"}, all},
	} {
		if got := names(root(c.args)); !slices.Equal(got, c.want) {
			t.Errorf("root(%q) has the verbs %q, want %q", c.args, got, c.want)
		}
	}
}

func names(cmd *cobra.Command) (names []string) {
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	slices.Sort(names)
	return names
}
