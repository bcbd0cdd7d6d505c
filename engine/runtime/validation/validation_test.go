//go:build functional

package validation

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const tools = "github.com/opencontainers/runtime-tools"

// notOK is a failed check of the suite, its number left out.
var notOK = regexp.MustCompile(`(?m)^not ok \d+(?: - )?(.*)$`)

// limit of one test of the suite; most take a second or two.
const limit = 2 * time.Minute

func command(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, errs.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// suite builds the suite into a directory as it wants to be run from, and
// returns the names of its tests.
func suite(t *testing.T, dir string) (names []string) {
	t.Helper()
	// A copy, so that building changes nothing here.
	module := t.TempDir()
	for _, f := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join("suite", f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(module, f), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command(t, module, "go", "mod", "download", tools)
	source := command(t, module, "go", "list", "-m", "-f", "{{.Dir}}", tools)
	command(t, module, "go", "build", "-o", filepath.Join(dir, "runtimetest"), tools+"/cmd/runtimetest")
	entries, err := os.ReadDir(filepath.Join(source, "validation"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && e.Name() != "util" {
			names = append(names, e.Name())
			command(t, module, "go", "build", "-o", filepath.Join(dir, e.Name()+".t"), tools+"/validation/"+e.Name())
		}
	}
	archives, err := filepath.Glob(filepath.Join(source, "rootfs-*.tar.gz"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no root file system in %s: %v", source, err)
	}
	for _, a := range archives {
		data, err := os.ReadFile(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(a)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// TestValidation fails on every failed check that is not in the list.
// GANTRY_RUNTIME names another runtime to compare with, a command that takes
// runc's verbs.
func TestValidation(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root")
	}
	dir := t.TempDir()
	wrapper := os.Getenv("GANTRY_RUNTIME")
	if wrapper == "" {
		binary := filepath.Join(dir, "gantry")
		root, err := filepath.Abs("../../..")
		if err != nil {
			t.Fatal(err)
		}
		build := exec.Command("go", "build", "-o", binary, "./cmd/gantry")
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		wrapper = filepath.Join(dir, "runtime")
		script := fmt.Sprintf("#!/bin/sh\nexec %s runtime --root %s \"$@\"\n", binary, filepath.Join(dir, "state"))
		if err := os.WriteFile(wrapper, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	names := suite(t, dir)
	list := failures()
	passed := 0
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, dir, name, wrapper)
			passed += strings.Count(out, "\nok ")
			k, listed := list[name]
			bad := notOK.FindAllStringSubmatch(out, -1)
			for _, m := range bad {
				if !k.covers(m[1]) {
					t.Errorf("not ok: %s", m[1])
				}
			}
			if err != nil && !k.ends {
				t.Errorf("ended with %v", err)
			}
			switch {
			case t.Failed():
				t.Log(out)
			case len(bad) > 0 || err != nil:
				t.Logf("%d known failures: %s", len(bad), k.reason)
			case listed:
				t.Log("is in the list of known failures and passes here")
			}
		})
	}
	t.Logf("%d tests, %d checks passed", len(names), passed)
}

func run(t *testing.T, dir, name, wrapper string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, name+".t"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "RUNTIME="+wrapper, "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return "\n" + string(out), err
}
