package oci_test

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/oci"
)

// fill sets everything in v, lists and maps with one element.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(3)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	}
}

// elsewhere keeps of what is for other platforms only that it is there.
func elsewhere(s *specs.Spec) {
	if s.Solaris != nil {
		s.Solaris = &specs.Solaris{}
	}
	if s.Windows != nil {
		s.Windows = &specs.Windows{}
	}
	if s.VM != nil {
		s.VM = &specs.VM{}
	}
	if s.ZOS != nil {
		s.ZOS = &specs.ZOS{}
	}
	if s.FreeBSD != nil {
		s.FreeBSD = &specs.FreeBSD{}
	}
}

// Every field of the specification arrives, also those of a later version.
func TestParseTakesEveryField(t *testing.T) {
	var want specs.Spec
	fill(reflect.ValueOf(&want).Elem())
	text, err := json.Marshal(&want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := oci.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere(&want)
	if d := cmp.Diff(&want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// Parse is the decoder on the specification's own type.
func FuzzParse(f *testing.F) {
	good, err := os.ReadFile("testdata/docker.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"hooks":{"poststop":[{"path":"/a"}]},"linux":{"resources":{"blockIO":null},"devices":[{"path":"/d"}],"intelRdt":{}}}`))
	f.Add([]byte(`{"process":{"consoleSize":{"height":1},"CONSOLESIZE":{"width":2}},"hooks":{},"hooks":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := oci.Parse(text)
		if err != nil {
			return
		}
		var want specs.Spec
		if err := json.Unmarshal(text, &want); err != nil {
			// what is for other platforms is not looked at
			return
		}
		elsewhere(&want)
		if d := cmp.Diff(&want, got); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	})
}
