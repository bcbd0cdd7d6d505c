package local_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// withDrive is a request with a config drive of these files.
func withDrive(t *testing.T, files ...driver.File) driver.SpawnRequest {
	t.Helper()
	req := withPort(t)
	req.Drive = func(vifs objects.NetworkInfo) ([]driver.File, error) {
		if len(vifs) != 1 {
			t.Errorf("a drive without the network: %+v", vifs)
		}
		return files, nil
	}
	return req
}

// TestConfigDrive: it is there in every boot, cannot be written, is no part of the
// disk, and goes with the instance.
func TestConfigDrive(t *testing.T) {
	r := newRig(t)
	before := r.residue(t)
	req := withDrive(t, driver.File{Path: "openstack/latest/meta_data.json", Content: []byte(`{"uuid": "x"}`)},
		driver.File{Path: "openstack/2012-08-10/user_data", Content: []byte("\x00\xff data")},
		driver.File{Path: "openstack/latest/user_data", Content: nil})
	check(t, r.driver.Spawn(t.Context(), req))
	look := func(mark string) {
		t.Helper()
		r.inside(t, req.UUID, "/bin/sh", "-c", `{ cat /config-drive/openstack/latest/meta_data.json; wc -c /config-drive/openstack/2012-08-10/user_data;
			ls /dev/disk/by-label/config-2/openstack; touch /config-drive/x; stat -c %a /config-drive; echo `+mark+`; } > /dev/console 2>&1`)
		out := r.console(t, req.UUID, mark)
		out = out[strings.LastIndex(out, `{"uuid"`):]
		for _, want := range []string{`{"uuid": "x"}`, "7 /config-drive", "2012-08-10", "latest", "Read-only file system", "700"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: the drive has no %q: %s", mark, want, out)
			}
		}
	}
	look("first")
	check(t, r.driver.Reboot(t.Context(), driver.RebootRequest{UUID: req.UUID, Type: driver.RebootHard}))
	look("second")
	// a guest's own reboot after a new start of the service
	r.end()
	r.open(t)
	must(r.driver.Recover(t.Context()))(t)
	r.reboot(t, req.UUID)
	r.boots(t, req.UUID, 3)
	look("third")
	image := must(r.driver.Snapshot(t.Context(), driver.Credentials{}, req.UUID))(t)
	archive := must(io.ReadAll(image.Content))(t)
	check(t, image.Content.Close())
	if bytes.Contains(archive, []byte("meta_data.json")) {
		t.Error("the snapshot has the drive")
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	asBefore(t, r, before)
	r.wantDrives(t)
}

// wantDrives compares the drives that are kept.
func (r *rig) wantDrives(t *testing.T, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.host.Root, "config-drives"))
	check(t, err)
	if len(entries) != len(want) {
		t.Errorf("kept: %v", entries)
	}
}

// TestConfigDriveThatIsNone: what cannot be leaves nothing.
func TestConfigDriveThatIsNone(t *testing.T) {
	r := newRig(t)
	check(t, r.driver.Spawn(t.Context(), request())) // brings the image
	before := r.residue(t)
	broken := withPort(t)
	broken.Drive = func(objects.NetworkInfo) ([]driver.File, error) { return nil, errdefs.ErrInvalid }
	for name, req := range map[string]driver.SpawnRequest{
		"too large": withDrive(t, driver.File{Path: "a", Content: make([]byte, 17<<20)}),
		"way out":   withDrive(t, driver.File{Path: "../a"}),
		"twice":     withDrive(t, driver.File{Path: "a"}, driver.File{Path: "a"}),
		"no drive":  broken,
	} {
		if err := r.driver.Spawn(t.Context(), req); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		asBefore(t, r, before)
	}
	r.wantDrives(t)
	// one that no instance has
	check(t, os.WriteFile(filepath.Join(r.host.Root, "config-drives", "left"), nil, 0o600))
	r.end()
	r.open(t)
	must(r.driver.Recover(t.Context()))(t)
	r.wantDrives(t)
}

// TestEnvironment: metadata under env: are the guest's environment.
func TestEnvironment(t *testing.T) {
	r := newRig(t)
	req := request()
	req.Image.Properties = map[string]string{"os_command_line": `/bin/sh -c "echo [$GREETING] [$TERM] [$product_name]; sleep 1000"`}
	req.Metadata = map[string]string{"env:GREETING": "a = b\nc", "env:TERM": "dumb", "role": "db"}
	check(t, r.driver.Spawn(t.Context(), req))
	r.console(t, req.UUID, "[a = b c] [dumb] [OpenStack Nova]")
	for _, key := range []string{"env:", "env:A=B", "env:1A", "env:A B", "env:A\nB"} {
		bad := request()
		bad.Metadata = map[string]string{key: "x"}
		if err := r.driver.Spawn(t.Context(), bad); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.PublicText(err, ""), "environment") {
			t.Errorf("%q: %v", key, err)
		}
	}
}
