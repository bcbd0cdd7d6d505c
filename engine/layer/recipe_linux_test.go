package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// recipe of a stream, which is shown in pieces of a length.
func recipe(t testing.TB, data []byte, piece int) ([]byte, error) {
	t.Helper()
	var out bytes.Buffer
	r, err := NewRecorder(&out, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		n := min(piece, len(data))
		if m, err := r.Write(data[:n]); m != n || err != nil {
			t.Fatalf("write: %d, %v", m, err)
		}
		data = data[n:]
	}
	err = r.Close()
	return out.Bytes(), err
}

// stream makes a tar by the standard library's writer.
func stream(t testing.TB, format tar.Format, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		h.Format = format
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("z"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRebuildIsTheVeryStream(t *testing.T) {
	long := strings.Repeat("directory/", 20) + "name"
	file := func(name string, size int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}
	}
	plain := stream(t, tar.FormatPAX, file("./a", 10), tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}, file("d/b", 512),
		tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "d"}, file("l/through", 3), file("empty", 0),
		tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "a"}, file(long, 4096), file("/abs/./x", 1))
	longMap := "2000\n"
	for i := range 2000 {
		longMap += fmt.Sprintf("%d\n1\n", 4096*i+4095)
	}
	cases := map[string][]byte{
		"pax":            plain,
		"gnu long names": stream(t, tar.FormatGNU, file(long, 700), tar.Header{Typeflag: tar.TypeSymlink, Name: "s", Linkname: long}),
		"many links": stream(t, tar.FormatUSTAR, func() (out []tar.Header) {
			for range 500 {
				out = append(out, tar.Header{Typeflag: tar.TypeDir, Name: "x/"})
			}
			return append(out, file("f", 1))
		}()...),
		"global header": append(stream(t, tar.FormatPAX, tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "c"}})[:1024], plain...),
		"long tail":     append(bytes.Clone(plain), make([]byte, 200<<10)...),
		"without end":   plain[:len(plain)-1024],
		"sparse":        append(sparseEntry("d/sparse", "3\n0\n4096\n20480\n8192\n40960\n5\n", 40965, 4096+8192+5), plain...),
		"sparse, empty": append(sparseEntry("hole", "1\n1000000\n0\n", 1000000, 0), plain...),
		"a long map":    append(sparseEntry("long", longMap, 4096*2000, 2000), plain...),
		"whiteouts":     stream(t, tar.FormatPAX, file("d/.wh.x", 0), file("d/.wh..wh..opq", 0)),
	}
	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			j := newJail(t)
			if _, err := j.apply(t, Options{}, data); err != nil {
				t.Fatal(err)
			}
			for _, piece := range []int{1 << 20, 1000, 7} {
				rec, err := recipe(t, data, piece)
				if err != nil {
					t.Fatal(err)
				}
				var out bytes.Buffer
				if err := Rebuild(t.Context(), j.dir, bytes.NewReader(rec), &out); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(out.Bytes(), data) {
					t.Errorf("pieces of %d: another stream of %d bytes, not %d", piece, out.Len(), len(data))
				}
			}
		})
	}
}

// sparseEntry is a file in GNU's format 1.0, of size bytes of which stored come
// behind the map.
func sparseEntry(name, sparseMap string, size, stored int) []byte {
	var rec string
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=" + name, fmt.Sprintf("GNU.sparse.realsize=%d", size)} {
		n := len(kv) + 4 // the number, a space and a line feed
		rec += fmt.Sprintf("%d %s\n", n, kv)
	}
	fill := func(s string) string { return s + string(make([]byte, -len(s)&511)) }
	data := fill(sparseMap) + strings.Repeat("d", stored)
	var buf bytes.Buffer
	buf.Write(rawHeader("pax", 'x', func(b []byte) { copy(b[124:], octal(len(rec))) }))
	buf.WriteString(fill(rec))
	buf.Write(rawHeader("GNUSparseFile.0/"+name, '0', func(b []byte) { copy(b[124:], octal(len(data))) }))
	buf.WriteString(fill(data))
	return buf.Bytes()
}

func TestRecorderRefuses(t *testing.T) {
	file := tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 3}
	for name, data := range map[string][]byte{
		"a file twice":     stream(t, tar.FormatPAX, file, file),
		"cut in a header":  stream(t, tar.FormatPAX, file)[:100],
		"cut in a file":    stream(t, tar.FormatPAX, file)[:513],
		"a name outside":   stream(t, tar.FormatPAX, tar.Header{Typeflag: tar.TypeReg, Name: "../a", Size: 3}),
		"more than a map":  sparseEntry("a", "1\n0\n5\n", 5, 6),
		"less than a map":  sparseEntry("a", "1\n0\n5\n", 5, 4),
		"endless map":      sparseEntry("a", strings.Repeat("9", 3<<20), 5, 5),
		"long map":         sparseEntry("a", "99999999\n"+strings.Repeat("0\n", 2<<20), 5, 5),
		"backward map":     sparseEntry("a", "2\n4\n1\n0\n1\n", 5, 2),
		"old sparse":       append(rawHeader("a", 'S', func(b []byte) { copy(b[124:], octal(0)) }), make([]byte, 1024)...),
		"no tar":           bytes.Repeat([]byte("x"), 2048),
		"endless headers":  rawHeader("x", tar.TypeXHeader, func(b []byte) { copy(b[124:], "77777777777\x00") }),
		"content of a own": append(rawHeader("x", 'V', func(b []byte) { copy(b[124:], "00000000003\x00") }), make([]byte, 512)...),
	} {
		if _, err := recipe(t, data, 1<<20); !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRebuildOfWhatIsNotThere(t *testing.T) {
	data := stream(t, tar.FormatPAX, tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 3}, tar.Header{Typeflag: tar.TypeReg, Name: "b", Size: 3})
	rec, err := recipe(t, data, 512)
	if err != nil {
		t.Fatal(err)
	}
	without := tree(t, "a=zz")
	for name, recipe := range map[string][]byte{
		"another size": rec, "no recipe": []byte("x"), "empty": nil, "cut": rec[:len(rec)/2],
	} {
		err := Rebuild(t.Context(), openDirs(t, without)[0], bytes.NewReader(recipe), &bytes.Buffer{})
		if !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	link := tree(t)
	must(t, os.Symlink("/etc/passwd", link+"/a"))
	if err := Rebuild(t.Context(), openDirs(t, link)[0], bytes.NewReader(rec), &bytes.Buffer{}); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("a link: %v", err)
	}
}

// FuzzRecorder: whatever stream Apply takes, a recipe that was made of it and
// rebuilds anything rebuilds the very stream.
func FuzzRecorder(f *testing.F) {
	f.Add(stream(f, tar.FormatPAX, tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 3}))
	f.Add(sparseEntry("s", "2\n0\n5\n4096\n5\n", 5000, 10))
	f.Add(stream(f, tar.FormatGNU, tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("n", 120), Size: 600}))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := recipe(t, data, 100)
		if err != nil {
			return
		}
		j := newJail(t)
		if _, err := j.apply(t, Options{Limits: Limits{Bytes: 1 << 20}}, data); err != nil {
			return
		}
		var out bytes.Buffer
		err = Rebuild(t.Context(), j.dir, bytes.NewReader(rec), &out)
		if err == nil && out.Len() != len(data) {
			t.Errorf("%d bytes of %d", out.Len(), len(data))
		}
		if err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
			t.Error(err)
		}
	})
}
