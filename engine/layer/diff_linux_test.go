package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// listing renders a tar stream, one line an entry.
func listing(t *testing.T, data []byte) string {
	t.Helper()
	var b strings.Builder
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%c %04o %d:%d %s", hdr.Typeflag, hdr.Mode, hdr.Uid, hdr.Gid, hdr.Name)
		if hdr.Linkname != "" {
			fmt.Fprintf(&b, " -> %s", hdr.Linkname)
		}
		if len(body) > 0 {
			fmt.Fprintf(&b, " %.40q", body)
		}
		for k, v := range hdr.PAXRecords {
			if strings.HasPrefix(k, paxXattr) {
				fmt.Fprintf(&b, " %s=%q", strings.TrimPrefix(k, paxXattr), v)
			}
		}
		b.WriteByte('\n')
	}
}

func diff(t *testing.T, j *jail) ([]byte, DiffResult) {
	t.Helper()
	var buf bytes.Buffer
	res, err := Diff(t.Context(), j.dir, &buf)
	if err != nil {
		t.Fatal(err)
	}
	if res.DiffID != digest.FromBytes(buf.Bytes()) || res.Size != int64(buf.Len()) {
		t.Errorf("result %+v for %d bytes", res, buf.Len())
	}
	return buf.Bytes(), res
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestDiffOfAnUpperDirectory(t *testing.T) {
	j := newJail(t)
	p := func(name string) string { return filepath.Join(j.root, name) }
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(sock)
	must(t,
		os.Chmod(j.root, 0o751),
		os.Mkdir(p("etc"), 0o755), os.WriteFile(p("etc/new"), []byte("content"), 0o640), os.Chown(p("etc/new"), 33, 65534),
		unix.Mknod(p("etc/gone"), unix.S_IFCHR, 0),
		os.Mkdir(p("opaque"), 0o700), unix.Setxattr(p("opaque"), OpaqueXattr, []byte("y"), 0),
		os.WriteFile(p("opaque/x"), nil, 0o644), os.Link(p("opaque/x"), p("z")),
		os.Symlink("/etc/passwd", p("link")), os.Lchown(p("link"), 5, 5),
		unix.Mkfifo(p("pipe"), 0o600),
		os.WriteFile(p("su"), nil, 0o755), unix.Setxattr(p("su"), "user.k", []byte("v\x00"), 0),
		os.Chmod(p("su"), 0o755|os.ModeSetuid),
		// None of these can be said in a layer.
		unix.Bind(sock, &unix.SockaddrUnix{Name: p("socket")}), unix.Mknod(p("dev"), unix.S_IFCHR, 0x103),
		os.WriteFile(p(".wh.forged"), nil, 0o644), os.Mkdir(p("etc/.wh..wh..opq"), 0o755),
		unix.Setxattr(p("su"), "trusted.overlay.origin", []byte("x"), 0), unix.Setxattr(p("su"), "user.overlay.opaque", []byte("y"), 0),
	)
	data, res := diff(t, j)
	want := `5 0751 0:0 ./
5 0755 0:0 etc/
0 0000 0:0 etc/.wh.gone
0 0640 33:65534 etc/new "content"
2 0777 5:5 link -> /etc/passwd
5 0700 0:0 opaque/
0 0000 0:0 opaque/.wh..wh..opq
0 0644 0:0 opaque/x
6 0600 0:0 pipe
0 4755 0:0 su user.k="v\x00"
1 0644 0:0 z -> opaque/x
`
	if d := cmp.Diff(want, listing(t, data)); d != "" {
		t.Error(d)
	}
	if res.Skipped != 4 || res.Entries != 11 {
		t.Errorf("result %+v", res)
	}
	again, _ := diff(t, j)
	if !bytes.Equal(data, again) {
		t.Error("not deterministic")
	}
}

// TestDiffUndoesApply takes a layer through the directory form and back.
func TestDiffUndoesApply(t *testing.T) {
	v2 := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	first := makeTar(t, item{name: "./", typ: tar.TypeDir, mode: 0o755}, dirItem("a/"), file("a/.wh..wh..opq", ""), file("a/.wh.b", ""),
		file("a/long name "+strings.Repeat("x", 200), "1"), item{name: "a/ping", pax: map[string]string{paxXattr + capabilityXattr: v2}},
		symlink("a/s", strings.Repeat("t", 300)), file("a/\xff", ""), hardlink("b", "a/ping"), file("large", strings.Repeat("0123456789", 60000)))
	j := newJail(t)
	_, err := j.apply(t, Options{}, first)
	must(t, err)
	second, _ := diff(t, j)
	k := newJail(t)
	_, err = k.apply(t, Options{}, second)
	must(t, err)
	third, _ := diff(t, k)
	if d := cmp.Diff(j.tree(t), k.tree(t)); d != "" {
		t.Error(d)
	}
	if !bytes.Equal(second, third) {
		t.Errorf("streams differ:\n%s", cmp.Diff(listing(t, second), listing(t, third)))
	}
}

func TestDiffStopsWhenCancelled(t *testing.T) {
	j := newJail(t)
	must(t, os.WriteFile(filepath.Join(j.root, "f"), nil, 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Diff(ctx, j.dir, io.Discard); !errors.Is(err, errdefs.ErrAborted) {
		t.Fatal(err)
	}
}

func TestDiffPassesErrorsOfTheWriter(t *testing.T) {
	j := newJail(t)
	want := errors.New("upload was cut")
	if _, err := Diff(t.Context(), j.dir, errWriter{want}); !errors.Is(err, want) {
		t.Fatal(err)
	}
}

type errWriter struct{ err error }

func (w errWriter) Write([]byte) (int, error) { return 0, w.err }

// TestDiffWhileFilesChange races a writer against the walk: the stream stays
// well formed and nothing outside is read.
func TestDiffWhileFilesChange(t *testing.T) {
	j := newJail(t)
	name, other := filepath.Join(j.root, "f"), filepath.Join(j.root, "g")
	must(t, os.WriteFile(name, bytes.Repeat([]byte("x"), 1<<20), 0o600))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Truncate(name, int64(i%3)<<19)
			_ = os.Remove(other)
			switch i % 3 {
			case 0:
				_ = os.Symlink(j.canary, other)
			case 1:
				_ = unix.Mkfifo(other, 0o600)
			case 2:
				_ = os.Mkdir(other, 0o700)
			}
		}
	}()
	for range 50 {
		var buf bytes.Buffer
		_, err := Diff(t.Context(), j.dir, &buf)
		must(t, err)
		if out := listing(t, buf.Bytes()); strings.Contains(out, "untouched") {
			t.Fatal("the host's file is in the layer")
		}
	}
	close(stop)
	<-ended
}
