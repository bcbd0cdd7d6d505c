package matrix

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Claim is how far a row of Nova's matrix is done, in Nova's words for it
// (doc/source/user/support-matrix.ini): complete is expected to work at all times,
// partial with caveats, missing not at all.
type Claim string

// The claims.
const (
	Complete Claim = "complete"
	Partial  Claim = "partial"
	Missing  Claim = "missing"
)

// Row is one row of Nova's matrix of hypervisors, with our claim. A claim other
// than missing needs tests; tests of a missing row show the refusal.
type Row struct {
	Row   string   `yaml:"row"`
	Title string   `yaml:"title"`
	Claim Claim    `yaml:"claim"`
	Tests []string `yaml:"tests"`
	Note  string   `yaml:"note"`
}

// ReadRows reads docs/support-matrix.yaml. It refuses unknown keys, claims that
// are none, rows without name or title, rows that come twice, claims without a test
// and rows that are not complete and do not say why.
func ReadRows(in io.Reader) ([]Row, error) {
	var doc struct {
		Rows []Row `yaml:"rows"`
	}
	decoder := yaml.NewDecoder(in)
	decoder.KnownFields(true)
	if err := decoder.Decode(&doc); err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	seen := map[string]bool{}
	var wrong error
	for _, r := range doc.Rows {
		switch {
		case r.Row == "" || r.Title == "" || seen[r.Row]:
			wrong = errors.Join(wrong, fmt.Errorf("row %q: without a name or title, or twice", r.Row))
		case r.Claim != Complete && r.Claim != Partial && r.Claim != Missing:
			wrong = errors.Join(wrong, fmt.Errorf("row %q: claim %q", r.Row, r.Claim))
		case r.Claim != Missing && len(r.Tests) == 0:
			wrong = errors.Join(wrong, fmt.Errorf("row %q: claims %s without a test", r.Row, r.Claim))
		case r.Claim != Complete && r.Note == "":
			wrong = errors.Join(wrong, fmt.Errorf("row %q: is %s and does not say why", r.Row, r.Claim))
		}
		seen[r.Row] = true
	}
	if wrong != nil {
		return nil, fmt.Errorf("read rows: %w", wrong)
	}
	return doc.Rows, nil
}

// WriteRows renders Nova's matrix as a section of the document. A claim that no
// passed test shows is printed as unproven. files has where tests are, see Locate.
func WriteRows(w io.Writer, rows []Row, files map[string]string, r Results) error {
	count := map[string]int{}
	var body strings.Builder
	for _, row := range rows {
		says, note := string(row.Claim), row.Note
		if len(row.Tests) > 0 {
			state, why, err := r.Judge(Feature{Name: row.Row, Tests: row.Tests})
			if err != nil {
				return err
			}
			if state != Green && row.Claim != Missing {
				says = string(Unproven)
				note = strings.TrimPrefix(note+"; test: "+why, "; ")
			}
		}
		count[says]++
		fmt.Fprintf(&body, "| `%s` | %s | %s | %s | %s |\n", row.Row, cell(row.Title), says, linked(row.Tests, files), cell(note))
	}
	_, err := fmt.Fprintf(w, "\n## Nova's matrix of hypervisors\n\nNova's %d rows and its words for them; edited in `docs/support-matrix.yaml`. "+
		"Complete: %d, partial: %d, missing: %d, unproven: %d. Tests of a missing row show how it is refused.\n\n"+
		"| row | title | gantry | shown by | note |\n|---|---|---|---|---|\n%s",
		len(rows), count[string(Complete)], count[string(Partial)], count[string(Missing)], count[string(Unproven)], body.String())
	return err
}

// linked lists the tests, each with a link to its file where that is known.
func linked(tests []string, files map[string]string) string {
	var out []string
	for _, t := range tests {
		name := shown([]string{t})
		pkg, top, _ := strings.Cut(t, ":")
		top, _, _ = strings.Cut(top, "/")
		if file, ok := files[pkg+":"+top]; ok {
			name = "[" + name + "](../" + file + ")"
		}
		out = append(out, name)
	}
	return strings.Join(out, ", ")
}

// Locate returns the file of each test and fuzz target of the tree below root, by
// PACKAGE:TEST; files are relative to root, with slashes.
func Locate(root string) (map[string]string, error) {
	files := map[string]string{}
	fn := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := filepath.Rel(root, path)
		for _, m := range fn.FindAllSubmatch(raw, -1) {
			files[filepath.ToSlash(filepath.Dir(file))+":"+string(m[1])] = filepath.ToSlash(file)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("locate tests: %w", err)
	}
	return files, nil
}
