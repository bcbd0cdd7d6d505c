package transfer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/transfer"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var ids = transfer.IDs{Base: 1_000_000, Size: 65536}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is a root with a canary beside it.
func place(t testing.TB) (root *os.File, dir, canary string) {
	t.Helper()
	top := t.TempDir()
	dir, canary = filepath.Join(top, "root"), filepath.Join(top, "canary")
	check(t, os.Mkdir(dir, 0o755))
	check(t, os.Chown(dir, int(ids.Base), int(ids.Base)))
	check(t, os.WriteFile(canary, []byte("host"), 0o600))
	root, err := os.Open(dir)
	check(t, err)
	t.Cleanup(func() { root.Close() })
	t.Cleanup(func() {
		data, err := os.ReadFile(canary)
		info, serr := os.Stat(canary)
		if err != nil || serr != nil || string(data) != "host" || info.Mode().Perm() != 0o600 {
			t.Errorf("the canary was touched: %q %v %v", data, info, err)
		}
		if entries, err := os.ReadDir(top); err != nil || len(entries) != 2 {
			t.Errorf("something appeared beside the root: %v %v", entries, err)
		}
	})
	return root, dir, canary
}

func stream(t testing.TB, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		text := ""
		if h.Typeflag == tar.TypeReg || h.Typeflag == 0 {
			text = "data"
			h.Size = 4
		}
		check(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, text)
		check(t, err)
	}
	check(t, w.Close())
	return &b
}

func TestInOut(t *testing.T) {
	root, dir, _ := place(t)
	when := time.Unix(1_600_000_000, 5)
	res, err := transfer.In(t.Context(), root, "/", ids, transfer.Limits{}, stream(t,
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 5, Gid: 6, ModTime: when},
		tar.Header{Name: "d/f", Mode: 0o4755, Uid: 7, Gid: 8, ModTime: when},
		tar.Header{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "d/f"},
		tar.Header{Name: "d/link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd", Uid: 9},
		tar.Header{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
		tar.Header{Name: "implied/dir/f"},
	))
	if err != nil || res.Entries != 6 || res.Bytes != 8 {
		t.Fatalf("in: %+v %v", res, err)
	}
	var st unix.Stat_t
	check(t, unix.Lstat(filepath.Join(dir, "d/f"), &st))
	if st.Uid != ids.Base+7 || st.Gid != ids.Base+8 || st.Mode&0o7777 != 0o4755 || st.Nlink != 2 || st.Mtim.Sec != when.Unix() {
		t.Errorf("file %+v", st)
	}
	check(t, unix.Lstat(filepath.Join(dir, "implied/dir"), &st))
	if st.Uid != ids.Base {
		t.Errorf("implied directory of %d", st.Uid)
	}
	// again: what is there is replaced, and its other names keep their content
	_, err = transfer.In(t.Context(), root, "/d", ids, transfer.Limits{}, stream(t, tar.Header{Name: "link"}, tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "f"}))
	check(t, err)
	var out bytes.Buffer
	if _, err := transfer.Out(t.Context(), root, "/d/../d", ids, transfer.Limits{}, &out); err != nil {
		t.Fatal(err)
	}
	got := map[string]tar.Header{}
	tr := tar.NewReader(&out)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		got[h.Name] = *h
	}
	if len(got) != 5 || got["d/"].Uid != 5 || got["d/f"].Uid != 7 || got["d/hard"].Linkname != "d/f" || got["d/link"].Typeflag != tar.TypeReg || got["d/fifo"].Typeflag != tar.TypeFifo {
		t.Errorf("out: %+v", got)
	}
	names, err := filepath.Glob(filepath.Join(dir, "d/.gantry-*"))
	if err != nil || len(names) > 0 {
		t.Errorf("left over: %v %v", names, err)
	}
}

func TestInRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		class error
		lim   transfer.Limits
		in    []tar.Header
	}{
		"upwards":              {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "../canary"}}},
		"upwards in between":   {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "a/../../canary"}}},
		"absolute":             {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "/canary"}}},
		"long component":       {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: strings.Repeat("x", 256)}}},
		"deep":                 {errdefs.ErrInvalid, transfer.Limits{Depth: 3}, []tar.Header{{Name: "a/b/c/d"}}},
		"the directory itself": {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "."}}},
		"block device":         {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}}},
		"character device":     {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "mem", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 1}}},
		"foreign owner":        {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "f", Uid: 65536}}},
		"link to the outside":  {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "f", Typeflag: tar.TypeLink, Linkname: "../canary"}}},
		"link to nothing":      {errdefs.ErrNotFound, transfer.Limits{}, []tar.Header{{Name: "f", Typeflag: tar.TypeLink, Linkname: "g"}}},
		"link to a symlink": {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{
			{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "/x"}, {Name: "f", Typeflag: tar.TypeLink, Linkname: "s"},
		}},
		"file over directory": {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "d", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "d"}}},
		"directory over file": {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "d"}, {Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}}},
		"through a file":      {errdefs.ErrInvalid, transfer.Limits{}, []tar.Header{{Name: "d"}, {Name: "d/e"}}},
		"too many bytes":      {errdefs.ErrExhausted, transfer.Limits{Bytes: 7}, []tar.Header{{Name: "f"}, {Name: "g"}}},
		"too many files":      {errdefs.ErrExhausted, transfer.Limits{Entries: 1}, []tar.Header{{Name: "f"}, {Name: "g"}}},
	} {
		t.Run(name, func(t *testing.T) {
			root, _, _ := place(t)
			if _, err := transfer.In(t.Context(), root, "/", ids, tc.lim, stream(t, tc.in...)); !errors.Is(err, tc.class) {
				t.Errorf("%v, want %v", err, tc.class)
			}
		})
	}
	root, _, _ := place(t)
	half, err := io.ReadAll(stream(t, tar.Header{Name: "f"}))
	check(t, err)
	for what, data := range map[string][]byte{"cut off": half[:514], "no tar": bytes.Repeat([]byte("x"), 2048)} {
		if _, err := transfer.In(t.Context(), root, "/", ids, transfer.Limits{}, bytes.NewReader(data)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestLinksLeadNowhere: links of the container are followed as it would see
// them, and never out of its root.
func TestLinksLeadNowhere(t *testing.T) {
	root, dir, canary := place(t)
	for name, target := range map[string]string{"up": "../..", "abs": filepath.Dir(canary), "magic": "/proc/self/root", "loop": "loop"} {
		check(t, os.Symlink(target, filepath.Join(dir, name)))
		if _, err := transfer.Out(t.Context(), root, name+"/canary", ids, transfer.Limits{}, io.Discard); err == nil {
			t.Errorf("%s: the canary was read", name)
		}
		// lands inside, or is refused
		_, err := transfer.In(t.Context(), root, "/", ids, transfer.Limits{}, stream(t, tar.Header{Name: name + "/canary"}))
		if err != nil && !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: %v", name, err)
		}
	}
	check(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o666))
	for _, name := range []string{"/fifo", "/up", "/"} { // nothing blocks
		if _, err := transfer.Out(t.Context(), root, name, ids, transfer.Limits{}, io.Discard); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := transfer.Out(t.Context(), root, "/", ids, transfer.Limits{Entries: 2}, io.Discard); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("limit of entries: %v", err)
	}
}

// TestRace: while a component is swapped between a directory and a link to the
// host's own directory, no copy reads or writes outside.
func TestRace(t *testing.T) {
	root, dir, canary := place(t)
	real, link := filepath.Join(dir, "d"), filepath.Join(dir, "l")
	check(t, os.Mkdir(real, 0o755))
	check(t, os.Chown(real, int(ids.Base), int(ids.Base)))
	check(t, os.WriteFile(filepath.Join(real, "canary"), []byte("inside"), 0o644))
	check(t, os.Symlink(filepath.Dir(canary), link))
	ctx, cancel := context.WithCancel(t.Context())
	swapped := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if err := unix.Renameat2(unix.AT_FDCWD, real, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				swapped <- err
				return
			}
		}
		swapped <- nil
	}()
	for range 500 { // 2,000 copies
		var out bytes.Buffer
		if _, err := transfer.Out(t.Context(), root, "/d/canary", ids, transfer.Limits{}, &out); err == nil && bytes.Contains(out.Bytes(), []byte("host")) {
			t.Fatal("the host's file was read")
		}
		out.Reset()
		if _, err := transfer.Out(t.Context(), root, "/", ids, transfer.Limits{}, &out); err == nil && bytes.Contains(out.Bytes(), []byte("host")) {
			t.Fatal("the host's file was read")
		}
		_, _ = transfer.In(t.Context(), root, "/d", ids, transfer.Limits{}, stream(t, tar.Header{Name: "new"}, tar.Header{Name: "canary"})) // fails or lands inside
		_, _ = transfer.In(t.Context(), root, "/", ids, transfer.Limits{}, stream(t, tar.Header{Name: "d/canary", Mode: 0o777}))            // likewise
	}
	cancel()
	check(t, <-swapped)
}

func FuzzIn(f *testing.F) {
	good, err := io.ReadAll(stream(f, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "d/f"}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../.."}))
	check(f, err)
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		root, _, _ := place(t)
		_, _ = transfer.In(t.Context(), root, "/", ids, transfer.Limits{Bytes: 1 << 16, Entries: 100}, bytes.NewReader(data)) // the canary is what counts
	})
}
