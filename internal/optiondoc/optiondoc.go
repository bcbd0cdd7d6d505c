// Package optiondoc renders the reference of options from the source of
// config/config.go: sections, keys, kinds, defaults and meanings stand there as
// struct tags and nowhere else.
//
// It reads the source and not the type, because only cmd, internal/daemon and
// functional may import config. Its test keeps docs/configuration.md in step;
// go test ./internal/optiondoc -update writes it anew. Nothing imports the
// package.
package optiondoc

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Option is one line of the reference.
type Option struct {
	Key, Kind, Default, Doc string
	Required, Secret        bool
}

// Section is one section of the file.
type Section struct {
	Name    string
	Options []Option
	// Auth says that the options of Authentication belong to it too.
	Auth bool
}

// Reference is everything that the source defines.
type Reference struct {
	Sections []Section
	// Authentication are the options that several sections share.
	Authentication []Option
}

// Parse reads the Go source of the configuration.
func Parse(src []byte) (Reference, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", src, parser.SkipObjectResolution)
	if err != nil {
		return Reference{}, fmt.Errorf("read options: %w", err)
	}
	p := structs(file)
	var ref Reference
	auth, _, err := p.options("Auth")
	if err != nil {
		return ref, err
	}
	ref.Authentication = auth[""]
	for _, f := range p["Config"] {
		kind := kindOf(f.Type)
		name := tag(f).Get("section")
		if kind == "Auth" {
			ref.Sections = append(ref.Sections, Section{Name: name, Auth: true})
			continue
		}
		by, hasAuth, err := p.options(kind)
		if err != nil {
			return ref, err
		}
		ref.Sections = append(ref.Sections, Section{Name: name, Options: by[""], Auth: hasAuth})
		for _, other := range slices.Sorted(maps.Keys(by)) {
			if other != "" {
				ref.Sections = append(ref.Sections, Section{Name: other, Options: by[other]})
			}
		}
	}
	return ref, nil
}

// parsed are the struct types of the file by name.
type parsed map[string][]*ast.Field

func structs(file *ast.File) parsed {
	p := parsed{}
	ast.Inspect(file, func(n ast.Node) bool {
		if t, ok := n.(*ast.TypeSpec); ok {
			if s, ok := t.Type.(*ast.StructType); ok {
				p[t.Name.Name] = s.Fields.List
			}
		}
		return true
	})
	return p
}

// options lists the fields of a struct by the section that a field names, ""
// for the struct's own, and says whether it embeds Auth.
func (p parsed) options(name string) (by map[string][]Option, auth bool, err error) {
	fields, ok := p[name]
	if !ok {
		return nil, false, fmt.Errorf("read options: no struct %s", name)
	}
	by = map[string][]Option{}
	for _, f := range fields {
		if len(f.Names) == 0 {
			auth = auth || kindOf(f.Type) == "Auth"
			continue
		}
		t := tag(f)
		kind, ok := kinds()[kindOf(f.Type)]
		if !ok || t.Get("key") == "" {
			return nil, false, fmt.Errorf("read options: field %s of %s has no key or an unknown type", f.Names[0], name)
		}
		s := t.Get("section")
		by[s] = append(by[s], Option{
			Key: t.Get("key"), Kind: kind, Default: t.Get("default"), Doc: t.Get("doc"),
			Required: t.Get("required") == "true", Secret: t.Get("secret") == "true",
		})
	}
	return by, auth, nil
}

func kinds() map[string]string {
	return map[string]string{
		"string": "text", "bool": "boolean", "int": "integer", "int64": "integer", "float64": "number",
		"time.Duration": "seconds", "[]string": "list",
	}
}

func kindOf(e ast.Expr) string {
	switch t := e.(type) {
	case *ast.Ident:
		return t.Name
	case *ast.SelectorExpr:
		return kindOf(t.X) + "." + t.Sel.Name
	case *ast.ArrayType:
		return "[]" + kindOf(t.Elt)
	}
	return ""
}

func tag(f *ast.Field) reflect.StructTag {
	if f.Tag == nil {
		return ""
	}
	s, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return "" // the parser has accepted the literal
	}
	return reflect.StructTag(s)
}

// Markdown renders the document.
func (r Reference) Markdown() string {
	var b strings.Builder
	b.WriteString(intro)
	for _, s := range r.Sections {
		b.WriteString("\n## [" + s.Name + "]\n\n")
		if s.Auth {
			b.WriteString("The options of [Authentication](#authentication)")
			if len(s.Options) == 0 {
				b.WriteString(".\n")
				continue
			}
			b.WriteString(", and:\n\n")
		}
		table(&b, s.Options)
	}
	b.WriteString("\n## Authentication\n\nOptions of each section that names a service, as keystoneauth has them.\n\n")
	table(&b, r.Authentication)
	return b.String()
}

func table(b *strings.Builder, options []Option) {
	b.WriteString("| option | kind | default | meaning |\n|---|---|---|---|\n")
	for _, o := range options {
		def := ""
		if o.Default != "" {
			def = "`" + o.Default + "`"
		}
		if o.Required {
			def = "**required**"
		}
		doc := o.Doc
		if o.Secret {
			doc += " (never printed)"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", o.Key, o.Kind, def, strings.ReplaceAll(doc, "|", `\|`))
	}
}
