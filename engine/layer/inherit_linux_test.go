package layer

import (
	"archive/tar"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestInherit(t *testing.T) {
	low, mid, top := newJail(t), newJail(t), newJail(t)
	_, err := low.apply(t, Options{}, makeTar(t,
		item{name: "./", typ: tar.TypeDir, mode: 0o711, uid: 3}, item{name: "tmp", typ: tar.TypeDir, mode: 0o1777},
		item{name: "home", typ: tar.TypeDir, mode: 0o750, uid: 5, gid: 6, pax: map[string]string{paxXattr + "user.k": "v"}},
		dirItem("gone"), item{name: "link", typ: tar.TypeDir, mode: 0o700}))
	must(t, err)
	_, err = mid.apply(t, Options{}, makeTar(t, file(".wh.gone", ""), symlink("link", "tmp")))
	must(t, err)
	res, err := top.apply(t, Options{}, makeTar(t,
		file("tmp/x", ""), file("home/new/y", ""), file("gone/z", ""), file("link/w", ""), file("d/f", ""), file("d", "")))
	must(t, err)
	must(t, Inherit(top.dir, res.ImplicitDirs, []*os.File{mid.dir, low.dir}))
	want := `dir 0755 0:0 .
file 0644 0:0 d ""
dir 0755 0:0 gone
file 0644 0:0 gone/z ""
dir 0750 5:6 home
dir 0755 0:0 home/new
file 0644 0:0 home/new/y ""
dir 0755 0:0 link
file 0644 0:0 link/w ""
dir 1777 0:0 tmp
file 0644 0:0 tmp/x ""
`
	if d := cmp.Diff(want, top.tree(t)); d != "" {
		t.Error(d)
	}
	// With the middle layer's own root inherited first, it would be 0711.
	must(t, Inherit(mid.dir, []string{"."}, []*os.File{low.dir}), Inherit(top.dir, []string{"."}, []*os.File{mid.dir, low.dir}))
	for _, j := range []*jail{mid, top} {
		if st, err := j.dir.Stat(); err != nil || st.Mode().Perm() != 0o711 {
			t.Error(st.Mode(), err)
		}
	}
}
