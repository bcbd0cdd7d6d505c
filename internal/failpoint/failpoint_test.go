package failpoint

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestActions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "held")
	if err := Arm("a=error,b:2=error,c=hold:" + file + ",d=sleep:1ms"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		defer func() { _ = Set(name, "") }()
	}
	if err := Hit("a"); !errors.Is(err, ErrInjected) {
		t.Errorf("a: %v", err)
	}
	if first, second := Hit("b"), Hit("b"); first != nil || !errors.Is(second, ErrInjected) {
		t.Errorf("b: %v, then %v", first, second)
	}
	if err := errors.Join(Hit("d"), Hit("unknown")); err != nil {
		t.Error(err)
	}
	passed := make(chan error, 1)
	go func() { passed <- Hit("c") }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for held := false; !held; {
		<-tick.C
		_, err := os.Stat(file)
		held = err == nil
	}
	select {
	case err := <-passed:
		t.Fatalf("passed while it was held: %v", err)
	default:
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := <-passed; err != nil {
		t.Error(err)
	}
}

func TestArmRefuses(t *testing.T) {
	for _, list := range []string{"a", "a=explode", "a:0=error", "a:x=error", "a=sleep:soon", "a=hold", "a=hold:here"} {
		if err := Arm(list); err == nil {
			t.Errorf("%q was taken", list)
		}
	}
	if err := Hit("a"); err != nil {
		t.Error(err)
	}
}
