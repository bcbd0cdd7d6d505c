package drivertest

import (
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// testPassword: only a guest that runs, and only what its files can hold. That
// the guest then lets the user in is for the implementation's own tests.
func testPassword(t *testing.T, e *env) {
	p, ok := e.d.(driver.PasswordSetter)
	if !ok {
		return
	}
	ctx := t.Context()
	none := e.request(t)
	none.AdminPassword, none.PasswordSet = "", func() { t.Error("a password was set that nobody has given") }
	e.spawned = append(e.spawned, none.UUID)
	if err := e.d.Spawn(ctx, none); err != nil {
		t.Fatal(err)
	}
	wantClass(t, "password of the absent", p.SetPassword(ctx, NewUUID(), "root", "secret"), errdefs.ErrNotFound)
	req := e.spawn(t)
	for _, user := range []string{"", "root", "root"} {
		if err := p.SetPassword(ctx, req.UUID, user, "käse: 7"); err != nil {
			t.Errorf("SetPassword of %q: %v", user, err)
		}
	}
	for _, bad := range []struct {
		what, user, password string
		class                error
	}{
		{"an empty password", "root", "", errdefs.ErrInvalid},
		{"a zero byte", "root", "a\x00b", errdefs.ErrInvalid},
		{"a line break", "root", "a\nb", errdefs.ErrInvalid},
		{"a long password", "root", strings.Repeat("x", 1025), errdefs.ErrInvalid},
		{"a user with a colon", "root:x", "secret", errdefs.ErrInvalid},
		{"a user of two lines", "root\nroot", "secret", errdefs.ErrInvalid},
		{"an unknown user", "nobody-here", "secret", errdefs.ErrUnsupported},
	} {
		wantClass(t, bad.what, p.SetPassword(ctx, req.UUID, bad.user, bad.password), bad.class)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	wantClass(t, "password of the stopped", p.SetPassword(ctx, req.UUID, "root", "secret"), errdefs.ErrConflict)
}
