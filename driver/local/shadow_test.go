package local

import (
	"errors"
	"testing"
	"time"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestCrypt(t *testing.T) {
	a, err := crypt("käse: 7")
	if err != nil {
		t.Fatal(err)
	}
	b, err := crypt("käse: 7")
	if err != nil || a == b {
		t.Errorf("twice the same hash %s, %v", a, err)
	}
	d, err := shacrypt.Decode(a)
	if err != nil || a[:3] != "$6$" {
		t.Fatalf("%s: %v", a, err)
	}
	if !d.Match("käse: 7") || d.Match("käse: 8") {
		t.Errorf("%s does not tell passwords apart", a)
	}
}

func TestReshadow(t *testing.T) {
	day := time.Unix(86400*20000+5, 0)
	for _, tc := range []struct{ what, file, user, want string }{
		{"locked", "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n", "root", "root:H:20000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n"},
		{"another user", "root:*:19000:0:99999:7:::\ndebian:!$6$x:19000:0:99999:7:::", "debian", "root:*:19000:0:99999:7:::\ndebian:H:20000:0:99999:7:::"},
		{"short line", "root::1\n", "root", "root:H:1\n"},
		{"beginning of a name", "rooty:*:1:\nroot:*:1:0\n", "root", "rooty:*:1:\nroot:H:20000:0\n"},
		{"foreign lines stay", "# a\n\n:::\nroot:x:1:\n", "root", "# a\n\n:::\nroot:H:20000:\n"},
	} {
		got, err := reshadow([]byte(tc.file), tc.user, "H", day)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: %q, %v, want %q", tc.what, got, err, tc.want)
		}
	}
	for _, file := range []string{"", "root\n", "daemon:*:1:\n", "root:x\n"} {
		if got, err := reshadow([]byte(file), "root", "H", day); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%q became %q, %v", file, got, err)
		}
	}
}

func FuzzReshadow(f *testing.F) {
	f.Add([]byte("root:*:19000:0:99999:7:::\n"), "root")
	f.Add([]byte("a:b\nroot::"), "root")
	f.Fuzz(func(t *testing.T, file []byte, user string) {
		got, err := reshadow(file, user, "H", time.Unix(0, 0))
		if err == nil && len(got) < len(user)+3 {
			t.Errorf("%q of %q", got, file)
		}
	})
}
