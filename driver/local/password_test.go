package local_test

import (
	"archive/tar"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The file keeps its owner and mode, and holds a hash that is the password's.
func TestSetPassword(t *testing.T) {
	r := newRig(t)
	req := request()
	check(t, r.driver.Spawn(t.Context(), req))
	check(t, r.driver.SetPassword(t.Context(), req.UUID, "", "open sesame"))
	hdr, file := r.file(t, req.UUID, "/etc/shadow")
	if hdr.Mode != 0o640 || hdr.Uid != 0 || hdr.Gid != 42 {
		t.Errorf("mode %o of %d:%d", hdr.Mode, hdr.Uid, hdr.Gid)
	}
	fields := strings.Split(file, ":")
	digest, err := shacrypt.Decode(fields[1])
	if err != nil || !digest.Match("open sesame") || fields[0] != "root" {
		t.Errorf("%q: %v", file, err)
	}
	// what leads elsewhere is no password file
	exec, err := r.engine.Exec(t.Context(), engine.ContainerID(req.UUID), engine.ExecRequest{
		Args: []string{"/bin/busybox", "sh", "-c", "/bin/busybox mv /etc/shadow /etc/passwords && /bin/busybox ln -s passwords /etc/shadow"},
	})
	check(t, err)
	end, err := r.engine.ExecWait(t.Context(), engine.ContainerID(req.UUID), exec.ID)
	if err != nil || !end.Known || end.Code != 0 {
		t.Fatalf("%+v, %v", end, err)
	}
	err = r.driver.SetPassword(t.Context(), req.UUID, "root", "other")
	if !errors.Is(err, errdefs.ErrUnsupported) || errdefs.PublicText(err, "") == "" {
		t.Errorf("a link for a file: %v", err)
	}
	if _, now := r.file(t, req.UUID, "/etc/passwords"); now != file {
		t.Errorf("%q became %q", file, now)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// The password of a build is root's only if the operator wants that.
func TestInjectPassword(t *testing.T) {
	r := newRig(t)
	for _, inject := range []bool{false, true} {
		r.end()
		r.inject = inject
		r.open(t)
		req := request()
		set := 0
		req.AdminPassword, req.PasswordSet = "of the build", func() { set++ }
		check(t, r.driver.Spawn(t.Context(), req))
		hdr, file := r.file(t, req.UUID, "/etc/shadow")
		digest, err := shacrypt.Decode(strings.Split(file, ":")[1])
		if matches := err == nil && digest.Match("of the build"); matches != inject || hdr.Mode != 0o640 {
			t.Errorf("injection %t: %q of mode %o", inject, file, hdr.Mode)
		}
		if told := set == 1; told != inject || set > 1 {
			t.Errorf("injection %t: told %d times", inject, set)
		}
		check(t, r.driver.Destroy(t.Context(), req.UUID))
	}
	req := request()
	req.AdminPassword = "two\nlines"
	before := r.residue(t)
	if err := r.driver.Spawn(t.Context(), req); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a password of two lines: %v", err)
	}
	asBefore(t, r, before)
}

// file reads a file of a guest.
func (r *rig) file(t *testing.T, uuid driver.InstanceUUID, name string) (*tar.Header, string) {
	t.Helper()
	s, err := r.engine.CopyOut(t.Context(), engine.ContainerID(uuid), engine.CopyRequest{Path: name})
	check(t, err)
	defer s.Close()
	tr := tar.NewReader(s)
	hdr, err := tr.Next()
	check(t, err)
	data, err := io.ReadAll(tr)
	check(t, err)
	return hdr, string(data)
}
