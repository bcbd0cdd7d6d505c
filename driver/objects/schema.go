package objects

import (
	_ "embed"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// zedText is the object registry of Nova 26 (Zed), the floor that every
// request of ours asks for: no object used here has changed its major version
// since, and Zed's minors are the lowest that a supported conductor speaks.
//
//go:embed zed.txt
var zedText string

var zed = sync.OnceValue(func() map[string]Schema {
	t, err := parseSchemas(zedText)
	if err != nil {
		panic(err) // the text is compiled in and a test parses it
	}
	return t
})

// Schema is one object of the Zed registry. It is shared: do not change it.
type Schema struct {
	Name, Version string
	Fields        []Field
}

// Field is one declared field of an object.
type Field struct {
	Name string
	// Type in the notation that heads zed.txt, without the mark for null.
	Type     string
	Nullable bool
}

// Object returns the name of the object that the field holds, by itself or in
// a list, map or set; "" if it holds none.
func (f Field) Object() string {
	_, name, ok := strings.Cut(f.Type, "O:")
	if !ok {
		return ""
	}
	return strings.TrimRight(name, "]?")
}

// Field returns the field of that name.
func (s Schema) Field(name string) (Field, bool) {
	i := slices.IndexFunc(s.Fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return Field{}, false
	}
	return s.Fields[i], true
}

// Lookup returns the schema of an object by name.
func Lookup(name string) (Schema, bool) {
	s, ok := zed()[name]
	return s, ok
}

// Schemas walks all known objects in the order of their names.
func Schemas() iter.Seq[Schema] {
	return func(yield func(Schema) bool) {
		for _, name := range slices.Sorted(maps.Keys(zed())) {
			if !yield(zed()[name]) {
				return
			}
		}
	}
}

// New returns an empty object at the version of the manifest. It panics when
// no object has that name, which is a mistake in the program.
func New(name string) *Object {
	s, ok := Lookup(name)
	if !ok {
		panic("objects: no object is named " + strconv.Quote(name))
	}
	return &Object{Name: name, Version: s.Version}
}

// Manifest returns the version of the named object and of every object that it
// can contain at any depth: the object_versions of a class action. Conductor
// does not convert a child that is missing here, so it is always complete. It
// panics when no object has that name.
//
// Source: oslo_versionedobjects/base.py, obj_tree_get_versions.
func Manifest(name string) map[string]string {
	out := map[string]string{}
	var add func(string)
	add = func(n string) {
		if _, done := out[n]; done {
			return
		}
		s, ok := Lookup(n)
		if !ok {
			panic("objects: no object is named " + strconv.Quote(n))
		}
		out[n] = s.Version
		for _, f := range s.Fields {
			if child := f.Object(); child != "" {
				add(child)
			}
		}
	}
	add(name)
	return out
}

// VersionError says that an object came in a version that cannot be read here.
// Conductor can convert it (object_backport_versions). It is
// errdefs.ErrUnsupported.
type VersionError struct {
	// Object is what came, undamaged.
	Object *Object
	// Want is our version, "" when no object of that name is known.
	Want string
}

// Error names the object and both versions.
func (e *VersionError) Error() string {
	if e.Want == "" {
		return fmt.Sprintf("object %q is not known", e.Object.Name)
	}
	return fmt.Sprintf("object %s %s: only version %s can be read", e.Object.Name, e.Object.Version, e.Want)
}

// Unwrap returns the error class.
func (e *VersionError) Unwrap() error { return errdefs.ErrUnsupported }

// Check reports whether o can be read: its name is known and its major version
// is ours. A newer or older minor is fine (fields are only ever added), and a
// third part of the version is ignored. Children are not looked at. The error
// is a *VersionError.
func Check(o *Object) error {
	s, ok := Lookup(o.Name)
	if !ok {
		return &VersionError{Object: o}
	}
	if major(o.Version) != major(s.Version) {
		return &VersionError{Object: o, Want: s.Version}
	}
	return nil
}

// Since reports whether o is of that version, "MAJOR.MINOR", or of a newer
// minor of the same major.
func (o *Object) Since(version string) bool {
	have, err := strconv.Atoi(minor(o.Version))
	want, werr := strconv.Atoi(minor(version))
	return err == nil && werr == nil && major(o.Version) == major(version) && have >= want
}

func minor(version string) string {
	_, rest, _ := strings.Cut(version, ".")
	m, _, _ := strings.Cut(rest, ".")
	return m
}

func major(version string) string {
	m, _, _ := strings.Cut(version, ".")
	return m
}

func parseSchemas(text string) (map[string]Schema, error) {
	out := map[string]Schema{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		head, fields, ok := strings.Cut(line, ":")
		name, version, ok2 := strings.Cut(head, " ")
		if !ok || !ok2 {
			return nil, fmt.Errorf("parse schema %q: %w", line, errdefs.ErrInvalid)
		}
		s := Schema{Name: name, Version: version}
		for _, field := range strings.Split(fields, ",") {
			if strings.TrimSpace(field) == "" {
				continue
			}
			fname, ftype, ok := strings.Cut(strings.TrimSpace(field), " ")
			if !ok {
				return nil, fmt.Errorf("parse schema of %s: field %q: %w", name, field, errdefs.ErrInvalid)
			}
			ftype, nullable := strings.CutSuffix(ftype, "?")
			s.Fields = append(s.Fields, Field{Name: fname, Type: ftype, Nullable: nullable})
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("parse schema of %s: %w", name, errdefs.ErrAlreadyExists)
		}
		out[name] = s
	}
	return out, nil
}
