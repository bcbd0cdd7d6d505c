package optiondoc

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

const document = "../../docs/configuration.md"

func TestDocumentIsCurrent(t *testing.T) {
	src, err := os.ReadFile("../../config/config.go")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	want := ref.Markdown()
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(document)
	if err != nil || string(got) != want {
		t.Errorf("docs/configuration.md does not match config/config.go (%v): run go test ./internal/optiondoc -update", err)
	}
	if !strings.Contains(want, "| `transport_url` | text | **required** |") || !strings.Contains(want, "its password (never printed)") {
		t.Error("the reference lacks what every reference has")
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
