package glance_test

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/glance"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const apiImage = `{"os_command_line": "/bin/top", "owner_specified.openstack.object": "images/busybox", "base_image_ref": null,
 "name": "busybox", "disk_format": "raw", "container_format": "bare", "visibility": "public", "size": 16777216, "virtual_size": null,
 "status": "active", "checksum": "3F909CE902A73EC6883B9440623FF6D7", "protected": false, "min_ram": 64, "min_disk": 1,
 "owner": "5de3b1ddd03a43cb923d753973ef7bbb", "os_hidden": false, "os_hash_algo": "sha512", "os_hash_value": "2c40", "id": "84f9f148",
 "created_at": "2026-11-21T06:07:13Z", "tags": [], "self": "/v2/images/84f9f148", "file": "/v2/images/84f9f148/file", "schema": "/v2/schemas/image",
 "locations": [{"url": "file:///etc/passwd"}], "direct_url": "file:///etc/passwd"}`

const novaImage = `{"properties": {"os_command_line": "/bin/top", "owner_specified.openstack.object": "images/busybox"},
 "deleted": false, "deleted_at": null, "disk_format": "raw", "container_format": "bare", "name": "busybox",
 "checksum": "3f909ce902a73ec6883b9440623ff6d7", "is_public": true, "size": 16777216, "status": "active", "min_ram": 64, "min_disk": 1,
 "owner": "5de3b1ddd03a43cb923d753973ef7bbb", "os_hidden": false, "os_hash_algo": "sha512", "os_hash_value": "2c40", "id": "84f9f148",
 "created_at": "2026-11-21T06:07:13.000000"}`

func TestParse(t *testing.T) {
	want := glance.Image{
		ID: "84f9f148", Name: "busybox", Status: "active", Owner: "5de3b1ddd03a43cb923d753973ef7bbb",
		DiskFormat: "raw", ContainerFormat: "bare", SizeBytes: 16777216,
		Checksum: "3f909ce902a73ec6883b9440623ff6d7", HashAlgo: "sha512", HashValue: "2c40", MinDiskGB: 1, MinRAMMB: 64,
		Created:    time.Date(2026, 11, 21, 6, 7, 13, 0, time.UTC),
		Properties: map[string]string{"os_command_line": "/bin/top", "owner_specified.openstack.object": "images/busybox"},
	}
	got, err := glance.Parse([]byte(novaImage))
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("Nova's dictionary: %v %s", err, d)
	}
	want.Visibility = "public"
	got, err = glance.Parse([]byte(apiImage))
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("image API: %v %s", err, d)
	}
	got, err = glance.Parse([]byte(`{"id": "x", "size": null, "n": 3, "created_at": "soon"}`))
	if err != nil || got.SizeBytes != -1 || !got.Created.IsZero() || got.Properties["n"] != "3" {
		t.Errorf("queued image: %+v %v", got, err)
	}
	for _, bad := range []string{``, `[]`, `{"size": "big"}`, `{"id": 7}`} {
		if _, err := glance.Parse([]byte(bad)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(apiImage))
	f.Add([]byte(novaImage))
	f.Fuzz(func(t *testing.T, raw []byte) {
		img, err := glance.Parse(raw)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if img.Properties == nil || img.SizeBytes < -1 {
			t.Errorf("%+v", img)
		}
	})
}

func TestStat(t *testing.T) {
	w := newWorld(t, glance.Options{})
	id := w.Add([]byte("data"), map[string]any{"os_command_line": "/bin/top", "visibility": "private", "owner": project})
	if img := w.stat(t, id); img.Properties["os_command_line"] != "/bin/top" || !img.Active() || img.SizeBytes != 4 {
		t.Errorf("%+v", img)
	}
	theirs := w.Add([]byte("data"), map[string]any{"visibility": "private", "owner": "other"})
	for _, id := range []string{theirs, "nope", "../../v2/images/" + theirs, "a/file"} {
		if _, err := w.client.Stat(t.Context(), w.user, id); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, id := range []string{"", ".", ".."} {
		if _, err := w.client.Stat(t.Context(), w.user, id); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestUpdate(t *testing.T) {
	w := newWorld(t, glance.Options{})
	img, err := w.client.Create(t.Context(), w.user, glance.NewImage{Name: "snap", Properties: map[string]string{"image_type": "snapshot", "instance_uuid": "u"}})
	if err != nil || img.Status != "queued" || img.SizeBytes != -1 || img.Active() {
		t.Fatalf("%+v %v", img, err)
	}
	err = w.client.Update(t.Context(), w.user, img.ID, glance.Patch{
		DiskFormat: "raw", ContainerFormat: "docker", Properties: map[string]string{"image_state": "available", "a/b~c": "x", "image_type": "again"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := w.stat(t, img.ID)
	want := map[string]string{"image_type": "again", "instance_uuid": "u", "image_state": "available", "a/b~c": "x"}
	if d := cmp.Diff(want, got.Properties); d != "" || got.DiskFormat != "raw" || got.ContainerFormat != "docker" || got.Name != "snap" {
		t.Errorf("%+v %s", got, d)
	}
	if err := w.client.Update(t.Context(), w.user, "nope", glance.Patch{Name: "x"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
	before := len(w.Requests())
	if err := w.client.Update(t.Context(), w.user, img.ID, glance.Patch{}); err != nil || len(w.Requests()) != before {
		t.Errorf("empty patch: %v", err)
	}
	active := w.Add([]byte("d"), nil)
	if err := w.client.Update(t.Context(), w.user, active, glance.Patch{DiskFormat: "qcow2"}); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("format of an active image: %v", err)
	}
}

func TestDelete(t *testing.T) {
	w := newWorld(t, glance.Options{})
	id := w.Add([]byte("data"), nil)
	for range 2 {
		if err := w.client.Delete(t.Context(), w.user, id); err != nil {
			t.Error(err)
		}
	}
	if !slices.Contains(w.Requests(), http.MethodDelete+" /v2/images/"+id) || w.Fields(id) != nil {
		t.Error("not deleted")
	}
	kept := w.Add([]byte("data"), map[string]any{"protected": true})
	if err := w.client.Delete(t.Context(), w.user, kept); !errors.Is(err, errdefs.ErrForbidden) {
		t.Error(err)
	}
}
