package engine_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// pax is a file with records of a PAX header.
func pax(name string, records ...string) entry {
	f := file(name, "x")
	f.PAXRecords, f.Format = map[string]string{}, tar.FormatPAX
	for i := 0; i+1 < len(records); i += 2 {
		f.PAXRecords[records[i]] = records[i+1]
	}
	return f
}

// TestSecurityHostileImages: IM-1 to IM-5 through a whole engine. Each archive is
// refused with a typed error and a text for tenants, and leaves nothing, or what
// it holds lands inside.
func TestSecurityHostileImages(t *testing.T) {
	canary := hostCanary(t)
	up := strings.Repeat("../", 30) + canary[1:]
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, err := z.Write(tarball(t, file("zeros", string(make([]byte, 66<<20)))))
	check(t, errors.Join(err, z.Close()))
	const mustFail, may = true, false
	for name, c := range map[string]struct {
		fails bool
		data  []byte
	}{
		"parent":                  {mustFail, tarball(t, file("../x", "x"))},
		"parents to the host":     {mustFail, tarball(t, file(up+"/new", "x"))},
		"absolute":                {may, tarball(t, file(canary+"/new", "x"))},
		"parent in between":       {mustFail, tarball(t, dir("a"), file("a/../../x", "x"))},
		"backslash":               {may, tarball(t, file(`..\..\x`, "x"))},
		"not UTF-8":               {may, tarball(t, file("a\xff\xfe", "x"))},
		"long name":               {mustFail, tarball(t, file(strings.Repeat("n", 300), "x"))},
		"5000 deep":               {mustFail, tarball(t, dir(strings.Repeat("d/", 5000)))},
		"through a link":          {may, tarball(t, link("d", canary), file("d/new", "x"))},
		"through a relative link": {may, tarball(t, link("d", up), file("d/new", "x"))},
		"over a link":             {may, tarball(t, link("f", canary+"/secret"), file("f", "x"))},
		"hard link to the host":   {mustFail, tarball(t, hard("h", "/etc/shadow"))},
		"hard link upwards":       {mustFail, tarball(t, hard("h", up+"/secret"))},
		"hard link by a link":     {mustFail, tarball(t, link("d", canary), hard("h", "d/secret"))},
		"rootfs is a link":        {may, tarball(t, link("rootfs", canary), link("upper", canary), link("work", up))},
		"whiteout of the parent":  {mustFail, tarball(t, file(".wh...", ""))},
		"whiteout upwards":        {mustFail, tarball(t, file("../.wh.secret", ""))},
		"whiteout by a link":      {may, tarball(t, link("d", canary), file("d/.wh.secret", ""))},
		"opaque by a link":        {may, tarball(t, link("d", canary), file("d/.wh..wh..opq", ""))},
		"whiteout device":         {mustFail, tarball(t, entry{tar.Header{Name: "w", Typeflag: tar.TypeChar}, ""})},
		"disk":                    {may, tarball(t, entry{tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o666}, ""})},
		"overlay attribute":       {mustFail, tarball(t, pax("f", "SCHILY.xattr.trusted.overlay.redirect", "/etc"))},
		"large attribute":         {mustFail, tarball(t, pax("f", "SCHILY.xattr.user.x", strings.Repeat("x", 200_000)))},
		"owner of 2^31":           {mustFail, tarball(t, entry{tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: 1 << 31, Format: tar.FormatPAX}, ""})},
		"cut off":                 {mustFail, tarball(t, file("f", strings.Repeat("x", 100_000)))[:50_000]},
		"gzip bomb":               {mustFail, bomb.Bytes()},
		"201 layers":              {mustFail, manyLayers(t, 201)},
	} {
		_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "x", Content: bytes.NewReader(c.data)})
		text := errdefs.PublicText(err, "")
		switch {
		case err == nil && c.fails:
			t.Errorf("%s: imported", name)
		case err != nil && (text == "" || strings.Contains(text, h.Root) || strings.Contains(text, canary) && !bytes.Contains(c.data, []byte(canary))):
			t.Errorf("%s: %v, text %q", name, err, text)
		case err != nil && !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrCorrupt):
			t.Errorf("%s: %v", name, err)
		}
		check(t, e.RemoveImage(t.Context(), "x"))
		if n, b := entries(t, h, "snapshots/layers"), entries(t, h, "tmp"); n != 0 || b != 0 {
			t.Fatalf("%s: %d layers, %d temporary files left", name, n, b)
		}
	}
}

func manyLayers(t *testing.T, n int) []byte {
	t.Helper()
	layers := make([][]byte, n)
	for i := range layers {
		layers[i] = tarball(t, file(fmt.Sprint(i), "x"))
	}
	return archive(t, layers...)
}

// TestSecurityDamagedLayers: IM-6. One flipped byte of an archive, anywhere, and
// nothing is kept under any id.
func TestSecurityDamagedLayers(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	good := archive(t, tarball(t, dir("etc"), file("etc/f", strings.Repeat("content ", 500))), tarball(t, file("etc/g", "more")))
	refused := 0
	for at := 0; at < len(good); at += 97 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		if importOCI(t, e, "x", bad) != nil {
			refused++
			if n, b := entries(t, h, "snapshots/layers"), entries(t, h, "tmp"); n != 0 || b != 0 {
				t.Fatalf("byte %d: %d layers, %d temporary files left", at, n, b)
			}
			continue
		}
		// it was padding, or a field of a header that nobody needs: the same image
		got, err := os.ReadFile(filepath.Join(h.Root, "snapshots/layers", topLayer(t, h), "etc/g"))
		if err == nil && string(got) != "more" {
			t.Errorf("byte %d: the content is %q", at, got)
		}
		check(t, e.RemoveImage(t.Context(), "x"))
	}
	if refused < 20 {
		t.Errorf("only %d refused", refused)
	}
}

func topLayer(t *testing.T, h *enginetest.Host) string {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(h.Root, "snapshots/layers"))
	check(t, err)
	return list[len(list)-1].Name()
}

// TestSecurityUnpackingIsPrivate: IM-7. While a layer is unpacked no user of the
// host can reach the place, and it is no layer before it is whole.
func TestSecurityUnpackingIsPrivate(t *testing.T) {
	root := filepath.Join(t.TempDir(), "snapshots")
	check(t, os.Chmod(filepath.Dir(filepath.Dir(root)), 0o711))
	snaps, err := overlay.New(root)
	check(t, err)
	defer snaps.Close()
	id := "sha256:" + strings.Repeat("7", 64)
	check(t, snaps.Unpack(t.Context(), id, func(dir string) error {
		ls := exec.Command("/bin/busybox", "ls", dir)
		ls.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if ls.Run() == nil {
			t.Errorf("a user of the host reads %s", dir)
		}
		if there, err := snaps.HasLayer(t.Context(), id); err != nil || there {
			t.Errorf("a layer before it is whole: %v %v", there, err)
		}
		return nil
	}))
	if there, err := snaps.HasLayer(t.Context(), id); err != nil || !there {
		t.Errorf("unpacked: %v %v", there, err)
	}
	check(t, snaps.RemoveLayer(t.Context(), id))
}
