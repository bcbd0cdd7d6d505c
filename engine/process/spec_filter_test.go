package process

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestFilterJSON(t *testing.T) {
	want := Filter{{Code: 0x20, K: 4}, {Code: 0x15, JT: 1, JF: 255, K: 0xc000003e}, {Code: 6, K: 0x7fff0000}}
	text, err := json.Marshal(Spec{Seccomp: want})
	if err != nil {
		t.Fatal(err)
	}
	var got Spec
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got.Seccomp, want) {
		t.Errorf("%v %v", got.Seccomp, err)
	}
	text, err = json.Marshal([]SockFilter(want))
	if err != nil {
		t.Fatal(err)
	}
	var list Filter
	if err := json.Unmarshal(text, &list); err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("as objects: %v %v", list, err)
	}
	for _, none := range []Filter{nil, {}} {
		text, err := json.Marshal(Spec{Seccomp: none})
		if err != nil {
			t.Fatal(err)
		}
		var got Spec
		if err := json.Unmarshal(text, &got); err != nil || len(got.Seccomp) != 0 {
			t.Errorf("%v %v", got.Seccomp, err)
		}
	}
}

func FuzzFilterJSON(f *testing.F) {
	for _, text := range []string{`""`, `"IAAAAAQAAAA="`, `null`, `[{"Code":6}]`, `"IAAA"`, `7`, `"\u0041"`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got Filter
		if err := got.UnmarshalJSON(text); err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var back Filter
		if err := json.Unmarshal(again, &back); err != nil || len(back) != len(got) {
			t.Errorf("%q became %q: %v", text, again, err)
		}
	})
}
