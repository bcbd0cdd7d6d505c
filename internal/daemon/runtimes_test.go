package daemon

import (
	"errors"
	"maps"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestParseRuntimes(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                             {},
		"runsc=/usr/bin/runsc":         {"runsc": "/usr/bin/runsc"},
		"a=/a, b=/opt/b\tkata-qemu=/k": {"a": "/a", "b": "/opt/b", "kata-qemu": "/k"},
	} {
		if got, err := parseRuntimes(text); err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"runsc", "=/x", "a=relative", "a=/x a=/y", "a/b=/x"} {
		if _, err := parseRuntimes(text); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", text, err)
		}
	}
}
