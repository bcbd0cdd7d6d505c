package content_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/content"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestVerifier(t *testing.T) {
	d := digest.FromString("abc")
	for _, c := range []struct {
		text string
		size int64
		ok   bool
	}{
		{"abc", 3, true},
		{"abc", -1, true},
		{"abc", 2, false},
		{"abc", 4, false},
		{"abd", 3, false},
		{"ab", -1, false},
	} {
		_, err := io.ReadAll(content.NewVerifier(strings.NewReader(c.text), d, c.size))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
