// Package matrix makes docs/support-matrix.md: for each feature whether a test
// that passed shows it. What no passed test shows is printed as unproven.
//
// features.go is the table of features and of the tests that show them; nova.go
// does the same for Nova's own matrix, whose rows are data; this
// file reads results of go test -json and renders. The command is in
// internal/matrix/cmd. Nothing of the product imports the package, and it
// imports nothing of ours.
package matrix

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Group is a section of the matrix.
type Group struct {
	Name     string
	Features []Feature
}

// Feature is one line of the matrix.
type Feature struct {
	Name string
	// Tests show the feature when all of them match a test that passed and no
	// test that did not. Each is PACKAGE:REGEXP; PACKAGE is the import path
	// below the module, REGEXP matches a whole test name as go test -json
	// writes it ("TestX/a_case"). None means that no test shows the feature.
	Tests []string
	// Note says what an operator should know, for example why there is no test.
	Note string
}

// module is cut from package paths.
const module = "github.com/gantry-project/gantry/"

// Outcome of one test.
type Outcome string

// The outcomes, as go test -json names them (go doc test2json).
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	Skip Outcome = "skip"
)

// Results are outcomes by PACKAGE:TEST.
type Results map[string]Outcome

// Read adds the outcomes of a go test -json stream. Lines that are no JSON
// object (output of the compiler) are passed over. A test that has several
// outcomes keeps the worst: fail, then skip, then pass.
func (r Results) Read(in io.Reader) error {
	scan := bufio.NewScanner(in)
	scan.Buffer(nil, 16<<20)
	for n := 1; scan.Scan(); n++ {
		if !strings.HasPrefix(scan.Text(), "{") {
			continue
		}
		var e struct{ Action, Package, Test string }
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			return fmt.Errorf("read test results: line %d: %w", n, err)
		}
		out := Outcome(e.Action)
		if e.Test == "" || out != Pass && out != Fail && out != Skip {
			continue
		}
		key := strings.TrimPrefix(e.Package, module) + ":" + e.Test
		if worse(out, r[key]) {
			r[key] = out
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("read test results: %w", err)
	}
	return nil
}

// worse reports whether a replaces b; everything replaces nothing.
func worse(a, b Outcome) bool {
	rank := map[Outcome]int{"": 0, Pass: 1, Skip: 2, Fail: 3}
	return rank[a] > rank[b]
}

// State of a feature.
type State string

// The states. There is no third one: a failed test proves nothing.
const (
	Green    State = "green"
	Unproven State = "unproven"
)

// Judge says whether the results show the feature. why is empty for green and
// for a feature without tests, else it says which test is missing or failed.
func (r Results) Judge(f Feature) (state State, why string, err error) {
	if len(f.Tests) == 0 {
		return Unproven, "", nil
	}
	for _, pattern := range f.Tests {
		pkg, name, ok := strings.Cut(pattern, ":")
		if !ok {
			return "", "", fmt.Errorf("feature %q: %q is not PACKAGE:REGEXP", f.Name, pattern)
		}
		re, err := regexp.Compile("^" + regexp.QuoteMeta(pkg) + ":(?:" + name + ")$")
		if err != nil {
			return "", "", fmt.Errorf("feature %q: %w", f.Name, err)
		}
		worst := Outcome("")
		for key, out := range r {
			if re.MatchString(key) && worse(out, worst) {
				worst = out
			}
		}
		switch worst {
		case Pass:
		case "":
			return Unproven, "not run", nil
		case Fail, Skip:
			return Unproven, string(worst), nil
		}
	}
	return Green, "", nil
}

// Write renders the matrix as Markdown.
func Write(w io.Writer, groups []Group, r Results) error {
	var b strings.Builder
	b.WriteString(heading)
	total, green := 0, 0
	var body strings.Builder
	for _, g := range groups {
		body.WriteString("\n## " + g.Name + "\n\n| feature | state | shown by | note |\n|---|---|---|---|\n")
		for _, f := range g.Features {
			state, why, err := r.Judge(f)
			if err != nil {
				return err
			}
			total++
			if state == Green {
				green++
			}
			note := f.Note
			if why != "" && why != "not run" {
				note = strings.TrimPrefix(note+"; test: "+why, "; ")
			}
			fmt.Fprintf(&body, "| %s | %s | %s | %s |\n", cell(f.Name), state, shown(f.Tests), cell(note))
		}
	}
	fmt.Fprintf(&b, "\nGreen: %d of %d.\n", green, total)
	if len(r) == 0 {
		b.WriteString("\nThis version was made without test results.\n")
	}
	_, err := io.WriteString(w, b.String()+body.String())
	return err
}

const heading = `# Support matrix

*green*: every test named in the line passed in the run that made this file. *unproven*: a test is missing, was not run,
was skipped or failed; the feature may work, nobody has shown it.

Made by ` + "`go run ./internal/matrix/cmd -results FILE... -write docs/support-matrix.md`" + ` from results of ` + "`go test -json`" + `
(` + "`TEST_RESULTS=FILE make unit functional`" + ` appends them to FILE). Lines are edited in ` + "`internal/matrix/features.go`" + `, not here.
Tests of ` + "`functional`" + ` run against a real OpenStack Zed; the others run the package alone.
`

// shown lists the tests, each with its package.
func shown(tests []string) string {
	var out []string
	for _, t := range tests {
		out = append(out, "`"+cell(strings.ReplaceAll(t, `\.`, "."))+"`")
	}
	return strings.Join(out, ", ")
}

// cell keeps a text inside its table cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
