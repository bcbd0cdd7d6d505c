package process

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestSpecFilesCrossASocket(t *testing.T) {
	file := func() *os.File {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	full := Spec{
		CgroupFiles: []*os.File{file(), file()}, Stdio: [3]*os.File{nil, file(), file()}, Preserve: []*os.File{file()},
		ConsoleSocket: file(), Gate: file(), SeccompListener: file(), Root: file(),
		Namespaces: []Namespace{{Kind: PIDNamespace}, {Kind: UserNamespace, File: file()}, {Kind: IPCNamespace, Path: "/x"}, {Kind: NetworkNamespace, File: file()}},
	}
	full.Hooks.State = func(status string, pid int) []byte {
		text, _ := json.Marshal(map[string]any{"id": "x", "status": status, "pid": pid})
		return text
	}
	for name, spec := range map[string]Spec{
		"full":  full,
		"none":  {},
		"stdio": {Stdio: [3]*os.File{file(), nil, nil}},
		"gate":  {Gate: file()},
	} {
		t.Run(name, func(t *testing.T) {
			sent, kept := spec, slices.Clone(spec.Namespaces)
			files := sent.TakeFiles()
			if slices.ContainsFunc(sent.Namespaces, func(n Namespace) bool { return n.File != nil }) || !slices.Equal(spec.Namespaces, kept) {
				t.Errorf("namespaces %+v of %+v", sent.Namespaces, spec.Namespaces)
			}
			if sent.CgroupFiles != nil || sent.Root != nil || sent.Gate != nil || sent.Stdio[1] != nil || sent.Hooks.State != nil {
				t.Error("files are left in the Spec")
			}
			text, err := json.Marshal(&sent)
			if err != nil {
				t.Fatal(err)
			}
			var got Spec
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			if err := got.SetFiles(files); err != nil {
				t.Fatal(err)
			}
			if got.Root != spec.Root || !slices.Equal(got.Namespaces, spec.Namespaces) {
				t.Errorf("got %+v", got)
			}
			if got.Stdio != spec.Stdio || got.ConsoleSocket != spec.ConsoleSocket || got.Gate != spec.Gate ||
				got.SeccompListener != spec.SeccompListener || len(got.CgroupFiles) != len(spec.CgroupFiles) || len(got.Preserve) != len(spec.Preserve) {
				t.Errorf("got %+v", got)
			}
			if spec.Hooks.State != nil {
				if text := string(got.Hooks.State("created", 7)); text != `{"id":"x","pid":7,"status":"created"}` {
					t.Errorf("state %s", text)
				}
			}
			if err := got.SetFiles(append(files, file())); !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

func TestSpecFilesRefused(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const most = int(^uint(0) >> 1)
	for name, p := range map[string]*PassedFiles{
		"too few":        {Cgroup: 2},
		"negative":       {Cgroup: -1, Preserve: 2},
		"overflow":       {Cgroup: most, Preserve: most, Gate: true},
		"state":          {Gate: true, State: json.RawMessage("7")},
		"no state":       {Gate: true, State: json.RawMessage("null")},
		"no description": nil,
		"no namespace":   {Namespaces: []NamespaceKind{UserNamespace}},
		"by path":        {Namespaces: []NamespaceKind{NetworkNamespace}},
		"twice":          {Namespaces: []NamespaceKind{IPCNamespace, IPCNamespace}},
	} {
		spec := Spec{Passed: p, Namespaces: []Namespace{{Kind: NetworkNamespace, Path: "/x"}, {Kind: IPCNamespace}}}
		files := []*os.File{null}
		if p != nil && len(p.Namespaces) == 2 {
			files = append(files, null)
		}
		if err := spec.SetFiles(files); !errors.Is(err, errdefs.ErrInvalid) || spec.Gate != nil || spec.CgroupFiles != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A new field with files must not be forgotten.
func TestTakeFilesTakesAll(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var spec Spec
	fields, want := reflect.ValueOf(&spec).Elem(), 0
	for i := range fields.NumField() {
		switch f := fields.Field(i); f.Type() {
		case reflect.TypeFor[*os.File]():
			f.Set(reflect.ValueOf(null))
			want++
		case reflect.TypeFor[[]*os.File]():
			f.Set(reflect.ValueOf([]*os.File{null, null}))
			want += 2
		case reflect.TypeFor[[3]*os.File]():
			f.Set(reflect.ValueOf([3]*os.File{null, null, null}))
			want += 3
		}
	}
	if got := len(spec.TakeFiles()); got != want {
		t.Errorf("%d files taken of %d", got, want)
	}
}
