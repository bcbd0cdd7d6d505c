// Package manual makes manual pages of commands, from the same words as their
// help. The test of cmd/gantry writes docs/man with it.
package manual

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gantry-project/gantry/internal/roff"
)

// Page is a manual page of several commands, or of one with its verbs.
type Page struct {
	// Name and Section are the page's; About is its line in whatis(1).
	Name, Section, About string
	// Text says what the commands have in common.
	Text string
	// Commands are shown in this order, each followed by its own verbs.
	Commands []*cobra.Command
	// SeeAlso are other pages: name(section).
	SeeAlso []string
}

// Render writes the page. Options that most of the commands have are listed
// once.
func (g Page) Render() []byte {
	p := roff.New(g.Name, g.Section, g.About)
	all := g.leaves()
	p.Section("Synopsis")
	for _, c := range all {
		p.Usage(usage(c))
	}
	p.Section("Description")
	p.Text(g.Text)
	common := shared(all)
	if len(all) > 1 {
		p.Section("Commands")
	} else {
		p.Section("Options")
	}
	for _, c := range all {
		if len(all) > 1 {
			p.Sub(usage(c))
			p.Text(about(c))
		}
		flags(p, c, func(f *pflag.Flag) bool { return !common[f.Name] })
	}
	if len(common) > 0 {
		p.Section("Options of most commands")
		c := all[slices.IndexFunc(all, func(c *cobra.Command) bool { return hasAll(c, common) })]
		flags(p, c, func(f *pflag.Flag) bool { return common[f.Name] })
	}
	SeeAlso(p, g.SeeAlso)
	return p.Bytes()
}

// SeeAlso adds the section of that name.
func SeeAlso(p *roff.Page, pages []string) {
	p.Section("See also")
	p.Text(strings.Join(pages, ", "))
}

// leaves are the commands that do something, in order.
func (g Page) leaves() []*cobra.Command {
	var out []*cobra.Command
	var add func(c *cobra.Command)
	add = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		if c.Runnable() {
			out = append(out, c)
		}
		for _, sub := range c.Commands() {
			add(sub)
		}
	}
	for _, c := range g.Commands {
		add(c)
	}
	return out
}

// usage is the command's line, with its path.
func usage(c *cobra.Command) string { return c.UseLine() }

func about(c *cobra.Command) string {
	if c.Long != "" {
		return c.Long
	}
	return c.Short
}

// shared are the options with one name and one meaning that more than half of
// several commands have, if one of these has them all.
func shared(all []*cobra.Command) map[string]bool {
	type option struct{ name, usage string }
	counts := map[option]int{}
	for _, c := range all {
		c.Flags().VisitAll(func(f *pflag.Flag) { counts[option{f.Name, f.Usage}]++ })
	}
	out := map[string]bool{}
	for o, n := range counts {
		if o.name != "help" && n > 2 && n*2 > len(all) {
			out[o.name] = true
		}
	}
	if !slices.ContainsFunc(all, func(c *cobra.Command) bool { return hasAll(c, out) }) {
		return nil
	}
	return out
}

func hasAll(c *cobra.Command, names map[string]bool) bool {
	for name := range names {
		if c.Flags().Lookup(name) == nil {
			return false
		}
	}
	return true
}

// flags lists those options of a command that want says yes to.
func flags(p *roff.Page, c *cobra.Command, want func(*pflag.Flag) bool) {
	list := func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || !want(f) {
			return
		}
		kind, text := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "[]" {
			text += " (default: " + d + ")"
		}
		p.Term(name, strings.TrimSuffix(kind, "Array"), text)
	}
	c.Flags().VisitAll(list)
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if c.Flags().Lookup(f.Name) == nil {
			list(f)
		}
	})
}
