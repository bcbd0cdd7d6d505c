// Package roff writes manual pages in the macros of man(7). It knows nothing of
// what the pages are about, and is for the tests that keep docs/man in step.
package roff

import (
	"strings"
)

// Page is a manual page that is being written. Texts may hold anything: what is
// special to roff is escaped.
type Page struct{ b strings.Builder }

// New begins the page name(section). about is the line of whatis(1).
func New(name, section, about string) *Page {
	p := &Page{}
	p.line(".\\\" made by a test; see docs/man/README.md")
	p.line(`.TH "` + strings.ToUpper(escape(name)) + `" "` + section + `" "" "gantry" "gantry"`)
	p.line(".nh") // neither hyphens nor stretched lines: there are many words that one copies
	p.line(".ad l")
	p.Section("Name")
	p.line(escape(name) + ` \- ` + escape(about))
	return p
}

// Section begins a section.
func (p *Page) Section(title string) { p.line(`.SH "` + escape(strings.ToUpper(title)) + `"`) }

// Sub begins a part of a section.
func (p *Page) Sub(title string) { p.line(`.SS "` + escape(title) + `"`) }

// Text adds paragraphs; an empty line, or the end of the text, ends one. Other
// ends of lines are kept.
func (p *Page) Text(text string) {
	for par := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		p.line(".PP")
		for i, line := range strings.Split(par, "\n") {
			if i > 0 {
				p.line(".br")
			}
			p.line(protect(escape(line)))
		}
	}
}

// Usage adds a line of a synopsis, in bold.
func (p *Page) Usage(line string) {
	p.line(".PP")
	p.line(`\fB` + escape(line) + `\fR`)
}

// Term adds an entry of a list: what is set in bold, what comes after it in
// italics, and its meaning.
func (p *Page) Term(bold, italic, text string) {
	p.line(".TP")
	tag := `\fB` + escape(bold) + `\fR`
	if italic != "" {
		tag += ` \fI` + escape(italic) + `\fR`
	}
	p.line(tag)
	p.line(protect(escape(text)))
}

// Verbatim adds lines as they are.
func (p *Page) Verbatim(text string) {
	p.line(".PP\n.nf\n.RS 4")
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		p.line(protect(escape(line)))
	}
	p.line(".RE\n.fi")
}

// Bytes is the page so far.
func (p *Page) Bytes() []byte { return []byte(p.b.String()) }

func (p *Page) line(text string) { p.b.WriteString(text + "\n") }

// escape makes characters of what roff would read as something else. Signs of
// options and of code are those that one types.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "~", `\(ti`, "^", `\(ha`, `"`, `\(dq`,
		"…", "...", "\t", "    ").Replace(text)
}

// protect keeps a line from being a request, which begins with a dot; escape has
// taken the other sign of one away. An empty line stays one of a text.
func protect(line string) string {
	if strings.HasPrefix(line, ".") {
		return `\&` + line
	}
	if strings.TrimSpace(line) == "" {
		return `\&`
	}
	return line
}
