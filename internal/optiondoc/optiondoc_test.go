package optiondoc

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is made of the options")

func reference(t *testing.T) Reference {
	t.Helper()
	src, err := os.ReadFile("../../config/config.go")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestDocumentsAreCurrent(t *testing.T) {
	ref := reference(t)
	for name, want := range map[string]string{
		"../../docs/configuration.md":  ref.Markdown(),
		"../../docs/man/gantry.conf.5": string(ref.Manual()),
		"../../packaging/gantry.conf":  string(ref.Sample()),
	} {
		if *update {
			if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != want {
			t.Errorf("%s does not match config/config.go (%v): run go test ./internal/optiondoc -update", name, err)
		}
	}
	text := ref.Markdown()
	if !strings.Contains(text, "| `transport_url` | text | **required** |") || !strings.Contains(text, "its password (never printed)") {
		t.Error("the reference lacks what every reference has")
	}
}

// TestTheSampleHasEveryOption, each commented out.
func TestTheSampleHasEveryOption(t *testing.T) {
	ref := reference(t)
	text := string(ref.Sample())
	for _, s := range ref.Sections {
		_, rest, found := strings.Cut(text, "\n["+s.Name+"]\n")
		part, _, _ := strings.Cut(rest, "\n[")
		options := s.Options
		if s.Auth {
			options = append(options, ref.Authentication...)
		}
		for _, o := range options {
			if has := strings.Contains(part, "\n#"+o.Key+" ="); !found || has == strings.HasPrefix(o.Doc, forTests) {
				t.Errorf("[%s] %s: in the sample: %v", s.Name, o.Key, has)
			}
		}
	}
	for line := range strings.Lines(text) {
		if line != "\n" && line[0] != '#' && line[0] != '[' {
			t.Errorf("something is set: %q", line)
		}
	}
}

const sample = "package config\n" +
	"type Config struct {\n A A `section:\"a\"`\n P Auth `section:\"p\"`\n}\n" +
	"type Auth struct { U string `key:\"u\" doc:\"user\"` }\n" +
	"type A struct {\n Auth\n N int `key:\"n\" default:\"3\" doc:\"a|b\"`\n O bool `key:\"o\" section:\"other\" doc:\"elsewhere\"`\n}\n"

func TestParse(t *testing.T) {
	ref, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	out := ref.Markdown()
	for _, want := range []string{
		"## [a]\n\nThe options of [Authentication](#authentication), and:\n", "| `n` | integer | `3` | a\\|b |",
		"## [other]\n\n", "| `o` | boolean |  | elsewhere |", "## [p]\n\nThe options of [Authentication](#authentication).\n", "| `u` | text |  | user |",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for name, bad := range map[string]string{
		"syntax":       "package",
		"no auth":      "package config\ntype Config struct{}\n",
		"unknown type": "package config\ntype Config struct { A A }\ntype Auth struct{}\ntype A struct { X uint8 `key:\"x\"` }\n",
		"no key":       "package config\ntype Config struct { A A }\ntype Auth struct{}\ntype A struct { X int }\n",
		"no struct":    "package config\ntype Config struct { A B }\ntype Auth struct{}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse([]byte(bad)); err == nil {
				t.Error("accepted")
			}
		})
	}
}
