package xfs

import (
	"errors"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestAccessList(t *testing.T) {
	const owner, user = "\x00\x00\x00\x01\x00\x00\x00\x05\x00\x06\x00\x00", "\x00\x00\x00\x02\x00\x00\x03\xe8\x00\x04\x00\x00"
	for name, c := range map[string]struct{ in, want string }{
		"two entries":      {"\x00\x00\x00\x02" + owner + user, "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00"},
		"room for more":    {"\x00\x00\x00\x01" + owner + user, "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff"},
		"none":             {"\x00\x00\x00\x00", "\x02\x00\x00\x00"},
		"nothing":          {"", ""},
		"cut off":          {"\x00\x00\x00\x01" + owner[:11], ""},
		"more than it has": {"\xff\xff\xff\xff" + owner, ""},
		"tag":              {"\x00\x00\x00\x01\x00\x01" + owner[2:], ""},
		"permissions":      {"\x00\x00\x00\x01" + owner[:8] + "\xff\x06\x00\x00", ""},
	} {
		got, err := accessList([]byte(c.in))
		if got != c.want || (c.want == "") != errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
