package matrix

import (
	"os"
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

// TestFeaturesNameRealTests keeps the tables from naming tests that were
// renamed or removed: their features would be unproven for ever.
func TestFeaturesNameRealTests(t *testing.T) {
	have, err := Locate("../..")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string][]string{}
	for _, g := range Features() {
		for _, f := range g.Features {
			named[g.Name+": "+f.Name] = f.Tests
		}
	}
	for _, row := range rows(t) {
		named[row.Row] = row.Tests
	}
	for feature, tests := range named {
		for _, pattern := range tests {
			pkg, name, _ := strings.Cut(pattern, ":")
			top, _, _ := strings.Cut(name, "/")
			re := regexp.MustCompile("^" + regexp.QuoteMeta(pkg) + ":(?:" + top + ")$")
			found := false
			for n := range have {
				found = found || re.MatchString(n)
			}
			if !found {
				t.Errorf("%s names %s, which is no test of the tree", feature, pattern)
			}
		}
	}
}

// rows are those of the document.
func rows(t *testing.T) []Row {
	t.Helper()
	f, err := os.Open("../../docs/support-matrix.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := ReadRows(f)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRowsAreNovas(t *testing.T) {
	if n := len(rows(t)); n != 59 {
		t.Errorf("%d rows, Nova has 59", n)
	}
}

func TestReadRowsRefuses(t *testing.T) {
	for _, c := range []struct{ text, says string }{
		{"rows: [{row: a, title: A, claim: done}]", `claim "done"`},
		{"rows: [{row: a, title: A, claim: complete}]", "without a test"},
		{"rows: [{row: a, title: A, claim: missing}]", "does not say why"},
		{"rows: [{row: a, title: A, claim: missing, note: n}, {row: a, title: A, claim: missing, note: n}]", "twice"},
		{"rows: [{title: A, claim: missing, note: n}]", "without a name"},
		{"rows: [{row: a, colour: red}]", "colour"},
		{"rows: 7", "cannot unmarshal"},
	} {
		if _, err := ReadRows(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.text, err, c.says)
		}
	}
}

func TestWriteRows(t *testing.T) {
	r := Results{"a:TestGood": Pass, "a:TestBad": Fail}
	var b strings.Builder
	err := WriteRows(&b, []Row{
		{"x.good", "Good", Complete, []string{"a:TestGood"}, ""},
		{"x.half", "Half", Partial, []string{"a:TestGood/of_it"}, "half"},
		{"x.bad", "Bad", Complete, []string{"a:TestBad"}, "note"},
		{"x.none", "None|", Missing, nil, "why"},
	}, map[string]string{"a:TestGood": "a/a_test.go"}, r)
	want := "\n## Nova's matrix of hypervisors\n\nNova's 4 rows and its words for them; edited in `docs/support-matrix.yaml`. " +
		"Complete: 1, partial: 0, missing: 1, unproven: 2. Tests of a missing row show how it is refused.\n\n" +
		"| row | title | gantry | shown by | note |\n|---|---|---|---|---|\n" +
		"| `x.good` | Good | complete | [`a:TestGood`](../a/a_test.go) |  |\n" +
		"| `x.half` | Half | unproven | [`a:TestGood/of_it`](../a/a_test.go) | half; test: not run |\n" +
		"| `x.bad` | Bad | unproven | `a:TestBad` | note; test: fail |\n" +
		"| `x.none` | None\\| | missing |  | why |\n"
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, b.String(), want)
	}
}
