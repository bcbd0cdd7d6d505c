package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/viper"
	"gopkg.in/ini.v1"
)

// Sources says where a configuration comes from. Later ones win: files in
// order, then the environment, then Overrides.
type Sources struct {
	// Files are read and merged in order.
	Files []string
	// Environ holds NAME=value entries; GANTRY_SECTION_KEY overrides a key.
	Environ []string
	// Overrides are "section.key=value" entries.
	Overrides []string
}

// Error is a refused setting.
type Error struct {
	// File is where it stands, or "environment", "command line", or empty
	// when it stands nowhere.
	File, Section, Key string
	// Problem says what is wrong and what was expected.
	Problem string
}

// Error names file, section, key and the problem.
func (e *Error) Error() string {
	where := e.File
	if where == "" {
		where = "configuration"
	}
	return fmt.Sprintf("%s: [%s] %s: %s", where, e.Section, e.Key, e.Problem)
}

const delim = "::"

// ownSections are those in which an unknown key is refused.
var ownSections = []string{"gantry"}

// loader gathers values and remembers where each came from.
type loader struct {
	v      *viper.Viper
	origin map[string]string
}

// Load reads all sources into a Config, or returns all problems joined, each
// an *Error where it belongs to a setting.
func Load(src Sources) (*Config, error) {
	l := &loader{v: viper.NewWithOptions(viper.KeyDelimiter(delim)), origin: map[string]string{}}
	for _, name := range src.Files {
		if err := l.file(name); err != nil {
			return nil, err
		}
	}
	cfg := &Config{}
	fields := fieldsOf(cfg)
	if err := l.overrides(src, fields); err != nil {
		return nil, err
	}
	errs := l.unknown(fields)
	for _, f := range fields {
		if err := l.fill(f); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// file merges one file of oslo.config's format.
func (l *loader) file(name string) error {
	raw, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	f, err := ini.LoadSources(ini.LoadOptions{
		AllowPythonMultilineValues: true,
		IgnoreInlineComment:        true,
		SkipUnrecognizableLines:    false,
		PreserveSurroundedQuote:    true,
	}, raw)
	if err != nil {
		return fmt.Errorf("read configuration %s: %w", name, err)
	}
	for _, s := range f.Sections() {
		values := map[string]any{}
		for _, k := range s.Keys() {
			values[k.Name()] = k.Value()
			l.origin[path(s.Name(), k.Name())] = name
		}
		if err := l.v.MergeConfigMap(map[string]any{s.Name(): values}); err != nil {
			return fmt.Errorf("merge configuration %s: %w", name, err)
		}
	}
	return nil
}

// overrides applies the environment and the command line.
func (l *loader) overrides(src Sources, fields []field) error {
	env := map[string]string{}
	for _, e := range src.Environ {
		if name, value, ok := strings.Cut(e, "="); ok {
			env[name] = value
		}
	}
	for _, f := range fields {
		name := "GANTRY_" + strings.ToUpper(f.section) + "_" + strings.ToUpper(f.key)
		if value, ok := env[name]; ok {
			l.v.Set(f.path(), value)
			l.origin[f.path()] = "environment variable " + name
		}
	}
	for _, o := range src.Overrides {
		name, value, ok := strings.Cut(o, "=")
		section, key, dotted := strings.Cut(name, ".")
		i := slices.IndexFunc(fields, func(f field) bool { return f.path() == path(section, key) })
		if !ok || !dotted || i < 0 {
			return &Error{File: "command line", Section: section, Key: key, Problem: "expected --set SECTION.KEY=VALUE with a known key"}
		}
		l.v.Set(fields[i].path(), value)
		l.origin[fields[i].path()] = "command line"
	}
	return nil
}

// unknown finds keys of our own sections that are no option.
func (l *loader) unknown(fields []field) []error {
	known := map[string]bool{}
	names := map[string][]string{}
	for _, f := range fields {
		known[f.path()] = true
		names[f.section] = append(names[f.section], f.key)
	}
	var errs []error
	for p, file := range l.origin {
		section, key, _ := strings.Cut(p, delim)
		if slices.Contains(ownSections, section) && !known[p] {
			errs = append(errs, &Error{
				File: file, Section: section, Key: key,
				Problem: "unknown key; expected one of " + strings.Join(names[section], ", "),
			})
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}

// fill parses one field's value.
func (l *loader) fill(f field) error {
	text, set := f.def, l.v.IsSet(f.path())
	if set {
		text = l.expand(l.v.GetString(f.path()), 0)
	}
	if text == "" && f.value.Kind() != reflect.String {
		text = f.def // "key =" says nothing to a number
	}
	if text == "" {
		if f.required {
			return &Error{File: l.origin[f.path()], Section: f.section, Key: f.key, Problem: "missing; expected " + f.doc}
		}
		if set && f.value.Kind() == reflect.String {
			f.value.SetString("")
		}
		return nil
	}
	want := parse(f.value, text)
	if f.choices != nil && !slices.Contains(f.choices, text) {
		want = "one of " + strings.Join(f.choices, ", ")
	}
	if want != "" {
		return &Error{
			File: l.origin[f.path()], Section: f.section, Key: f.key,
			Problem: fmt.Sprintf("%q is not %s", text, want),
		}
	}
	return nil
}

var reference = regexp.MustCompile(`\$\$|\$\{?([A-Za-z_][A-Za-z0-9_.]*)\}?`)

// expand replaces $option and ${section.option} as oslo.config does.
func (l *loader) expand(text string, depth int) string {
	if depth > 8 || !strings.Contains(text, "$") {
		return text
	}
	return reference.ReplaceAllStringFunc(text, func(m string) string {
		if m == "$$" {
			return "$"
		}
		name := strings.Trim(m, "${}")
		section, key, dotted := strings.Cut(name, ".")
		if !dotted {
			section, key = "DEFAULT", name
		}
		if p := path(section, key); l.v.IsSet(p) {
			return l.expand(l.v.GetString(p), depth+1)
		}
		return m
	})
}

// parse sets v from text, or returns what was expected.
func parse(v reflect.Value, text string) string {
	switch v.Interface().(type) {
	case time.Duration:
		s, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return "a number of seconds"
		}
		v.SetInt(int64(s * float64(time.Second)))
	case string:
		v.SetString(text)
	case bool:
		switch strings.ToLower(text) {
		case "true", "1", "on", "yes":
			v.SetBool(true)
		case "false", "0", "off", "no":
			v.SetBool(false)
		default:
			return "a boolean (true, false, yes, no, on, off, 1, 0)"
		}
	case int, int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return "an integer"
		}
		v.SetInt(n)
	case float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return "a number"
		}
		v.SetFloat(x)
	case []string:
		var list []string
		for e := range strings.SplitSeq(text, ",") {
			if e = strings.TrimSpace(e); e != "" {
				list = append(list, e)
			}
		}
		v.Set(reflect.ValueOf(list))
	}
	return ""
}
