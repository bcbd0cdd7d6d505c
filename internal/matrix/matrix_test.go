package matrix

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const stream = `{"Action":"start","Package":"github.com/gantry-project/gantry/a"}
# compiler output
{"Action":"run","Package":"github.com/gantry-project/gantry/a","Test":"TestGood"}
{"Action":"pass","Package":"github.com/gantry-project/gantry/a","Test":"TestGood/one_case"}
{"Action":"pass","Package":"github.com/gantry-project/gantry/a","Test":"TestGood"}
{"Action":"fail","Package":"github.com/gantry-project/gantry/a","Test":"TestBad/x"}
{"Action":"pass","Package":"github.com/gantry-project/gantry/a","Test":"TestBad/x"}
{"Action":"skip","Package":"github.com/gantry-project/gantry/a","Test":"TestLeftOut"}
{"Action":"pass","Package":"github.com/gantry-project/gantry/b","Test":"TestElsewhere"}
{"Action":"fail","Package":"github.com/gantry-project/gantry/a"}
`

func read(t *testing.T, text string) Results {
	t.Helper()
	r := Results{}
	if err := r.Read(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestJudge(t *testing.T) {
	r := read(t, stream)
	for _, tc := range []struct {
		name  string
		tests []string
		state State
		why   string
	}{
		{"passed", []string{"a:TestGood"}, Green, ""},
		{"passed case", []string{"a:TestGood/one_case"}, Green, ""},
		{"no tests", nil, Unproven, ""},
		{"not run", []string{"a:TestNever"}, Unproven, "not run"},
		{"a part of a name is no match", []string{"a:TestGoo"}, Unproven, "not run"},
		{"another package", []string{"a:TestElsewhere"}, Unproven, "not run"},
		{"failed once is failed", []string{"a:TestBad/x"}, Unproven, "fail"},
		{"skipped", []string{"a:TestLeftOut"}, Unproven, "skip"},
		{"all must pass", []string{"a:TestGood", "a:TestLeftOut"}, Unproven, "skip"},
		{"one pattern, the worst counts", []string{"a:Test(Good|Bad/x)"}, Unproven, "fail"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			state, why, err := r.Judge(Feature{Name: tc.name, Tests: tc.tests})
			if err != nil || state != tc.state || why != tc.why {
				t.Errorf("got %s %q %v, want %s %q", state, why, err, tc.state, tc.why)
			}
		})
	}
	for _, bad := range []string{"TestWithoutPackage", "a:("} {
		if _, _, err := r.Judge(Feature{Tests: []string{bad}}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestReadRefusesDamage(t *testing.T) {
	if err := (Results{}).Read(strings.NewReader("\n{\"Action\":\"pa")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error %v", err)
	}
}

func TestWrite(t *testing.T) {
	var b strings.Builder
	err := Write(&b, []Group{{"One", []Feature{
		{"works", []string{`a:TestGood/one\.?_case`}, ""},
		{"a|b", nil, "because"},
		{"broken", []string{"a:TestBad/x"}, "known"},
	}}}, read(t, stream))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"## One\n", "| works | green |", `| a\|b | unproven |  | because |`, "| broken | unproven | `a:TestBad/x` | known; test: fail |", "Green: 1 of 3.",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	b.Reset()
	if err := Write(&b, Features(), Results{}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "| green |") || !strings.Contains(b.String(), "without test results") {
		t.Error("a matrix without results claims something")
	}
}

// TestFeaturesNameRealTests keeps the table from naming tests that were
// renamed or removed: their features would be unproven for ever.
func TestFeaturesNameRealTests(t *testing.T) {
	have := testNames(t, "../..")
	for _, g := range Features() {
		for _, f := range g.Features {
			for _, pattern := range f.Tests {
				pkg, name, _ := strings.Cut(pattern, ":")
				top, _, _ := strings.Cut(name, "/")
				re := regexp.MustCompile("^" + regexp.QuoteMeta(pkg) + ":(?:" + top + ")$")
				found := false
				for n := range have {
					found = found || re.MatchString(n)
				}
				if !found {
					t.Errorf("%s: feature %q names %s, which is no test of the tree", g.Name, f.Name, pattern)
				}
			}
		}
	}
}

func testNames(t *testing.T, root string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	fn := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		for _, m := range fn.FindAllSubmatch(raw, -1) {
			names[filepath.ToSlash(dir)+":"+string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
