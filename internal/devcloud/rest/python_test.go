package rest

import "testing"

func TestRepr(t *testing.T) {
	for in, want := range map[string]string{
		`null`: "None", `true`: "True", `false`: "False", `1.50`: "1.50", `"a'b\\\n"`: `'a\'b\\\n'`, `[1,"x",null]`: "[1, 'x', None]", `{"b":{},"a":[]}`: "{'a': [], 'b': {}}",
	} {
		var v any
		if err := Unmarshal([]byte(in), &v); err != nil {
			t.Fatal(err)
		}
		if got := Repr(v); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
