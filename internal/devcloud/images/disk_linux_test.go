package images

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAFullDisk fills a real one.
func TestAFullDisk(t *testing.T) {
	st := newStore(t)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(st.dir, "images")
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	st.open()
	kept := st.image("")
	st.want(204, "demo", "PUT", kept+"/file", "kept")
	for _, end := range []string{"/file", "/stage"} {
		at := st.image("")
		a := st.want(413, "demo", "PUT", at+end, strings.Repeat("x", 1<<20))
		if !strings.Contains(a.raw, "Image storage media is full") || strings.Contains(a.raw, st.dir) {
			t.Errorf("%s", a.raw)
		}
		if a := st.want(200, "demo", "GET", at, nil); a.text("status") != "queued" {
			t.Errorf("%s", a.raw)
		}
	}
	if f := st.files(); len(f) != 1 {
		t.Errorf("left: %v", f)
	}
	if a := st.want(200, "demo", "GET", kept+"/file", nil); a.raw != "kept" {
		t.Errorf("%q", a.raw)
	}
}

// BenchmarkList is a page of a thousand images.
func BenchmarkList(b *testing.B) {
	st := newStore(b)
	for range 1000 {
		st.image(`,"tags":["t"],"os_distro":"debian","os_version":"12"`)
	}
	for b.Loop() {
		st.want(200, "demo", "GET", "/v2/images?limit=1000", nil)
	}
}

// BenchmarkUpload is data from a request to the disk, hashed and synced.
func BenchmarkUpload(b *testing.B) {
	st := newStore(b)
	data := strings.Repeat("x", 16<<20)
	b.SetBytes(16 << 20)
	for b.Loop() {
		at := st.image("")
		st.want(204, "demo", "PUT", at+"/file", data)
		st.want(204, "demo", "DELETE", at, nil)
	}
}
