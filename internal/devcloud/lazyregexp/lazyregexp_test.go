package lazyregexp

import (
	"strings"
	"sync"
	"testing"
)

func TestItIsWhatRegexpIs(t *testing.T) {
	r := New(`(b+)c`)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if !r.MatchString("abbc") || r.MatchString("ac") {
				t.Error("match")
			}
		})
	}
	wg.Wait()
	if got := r.FindStringSubmatch("abbc"); len(got) != 2 || got[1] != "bb" {
		t.Errorf("submatch %q", got)
	}
	if got := r.ReplaceAllString("abbcbc", "<$1>"); got != "a<bb><b>" {
		t.Errorf("replaced %q", got)
	}
	if got := r.ReplaceAllStringFunc("abbc", strings.ToUpper); got != "aBBC" {
		t.Errorf("replaced by a function %q", got)
	}
	if r.String() != `(b+)c` {
		t.Errorf("text %q", r)
	}
}

func TestABadOneIsNoticedWhenItIsUsed(t *testing.T) {
	r := New("(")
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	r.MatchString("x")
}
