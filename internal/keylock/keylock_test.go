package keylock

import (
	"maps"
	"testing"
)

func TestHeld(t *testing.T) {
	var l Map[string]
	first, err := l.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.Lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Held(); !maps.Equal(got, map[string]int{"a": 1, "b": 1}) {
		t.Errorf("held: %v", got)
	}
	first()
	second()
	if got := l.Held(); len(got) != 0 {
		t.Errorf("held: %v", got)
	}
}
