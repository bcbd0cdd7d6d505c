package cgroup

import (
	"slices"
	"strings"
	"testing"
)

// all has every file of one version but those that are lacking; the two are
// told apart by v2.
func all(v2 bool, lacking ...string) features {
	files := map[string]bool{}
	f := features{
		Controllers: map[string]bool{},
		Has:         func(file string) bool { return files[file] },
		HugePages:   func() []string { return []string{"1GB", "2MB"} },
	}
	for _, m := range meansOf {
		c, here := m.v1, m.v1Files
		if v2 {
			c, here = m.v2, m.v2Files
		}
		if c != "" {
			f.Controllers[c] = true
		}
		for _, file := range here {
			files[file] = !slices.Contains(lacking, file)
		}
	}
	return f
}

func render(ws []write) string {
	var lines []string
	for _, w := range ws {
		lines = append(lines, w.File+"="+strings.ReplaceAll(w.Value, "\n", `\n`))
	}
	return strings.Join(lines, " ")
}

func TestWeight(t *testing.T) {
	for shares, want := range map[int64]int64{2: 1, 1024: 39, 2048: 79, 262144: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("weight(%d) = %d, want %d", shares, got, want)
		}
	}
}

func FuzzFlatKey(f *testing.F) {
	f.Add("populated 1\nfrozen 0\n", "frozen")
	f.Add("oom_kill 12", "oom_kill")
	f.Add("oom_kill_disable 0\nunder_oom 0\noom_kill 3", "oom_kill")
	f.Fuzz(func(_ *testing.T, text, key string) { flatKey(text, key) })
}

func TestFlatKey(t *testing.T) {
	const text = "oom_kill_disable 1\nunder_oom x\noom_kill 3\n"
	for key, want := range map[string]int64{"oom_kill": 3, "oom_kill_disable": 1, "under_oom": 0, "absent": 0} {
		if got := flatKey(text, key); got != want {
			t.Errorf("%s = %d, want %d", key, got, want)
		}
	}
}
