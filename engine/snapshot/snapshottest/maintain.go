package snapshottest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// sound fails if a check finds anything.
func sound(t *testing.T, e *env, req snapshot.CheckRequest) {
	t.Helper()
	if found, err := e.Check(t.Context(), req); err != nil || len(found) != 0 {
		t.Errorf("findings %+v, %v", found, err)
	}
}

func checkSound(t *testing.T, e *env) {
	ctx := t.Context()
	sound(t, e, snapshot.CheckRequest{})
	low, top := e.layer(t, "low", "a=1", "d/b=2"), e.layer(t, "top", "c=3")
	must(t, e.Prepare(ctx, "c", []string{low, top}, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	e.mount(t, "c", target, baseA)
	_, err := Inside(t, baseA, 0, target, "echo x > f")
	must(t, err)
	refs := &snapshot.References{Layers: []string{low, top}, Disks: []string{"c"}}
	for _, req := range []snapshot.CheckRequest{{}, {Repair: true}, {References: refs}, {Repair: true, References: refs}} {
		sound(t, e, req)
	}
	wantFile(t, filepath.Join(target, "f"), "x\n")
	// While a layer is being made it is not half made.
	must(t, e.Unpack(ctx, chainID("busy"), func(dir string) error {
		must(t, write(dir, "a=1"))
		sound(t, e, snapshot.CheckRequest{Repair: true})
		return nil
	}))
}

func (e *env) store(elem ...string) string {
	return filepath.Join(append([]string{e.dir, "store"}, elem...)...)
}

// kinds lists findings as "kind what", mended ones with a "+".
func kinds(found []snapshot.Finding) []string {
	var out []string
	for _, f := range found {
		s := string(f.Kind) + " " + f.What
		if f.Mended {
			s += " +"
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// wantFindings checks three times: what is found, what is mended, what is left.
func wantFindings(t *testing.T, e *env, refs *snapshot.References, mended, left []string) {
	t.Helper()
	for _, c := range []struct {
		repair bool
		mark   string
		want   []string
	}{{false, "", slices.Concat(mended, left)}, {true, " +", slices.Concat(mended, left)}, {false, "", left}} {
		found, err := e.Check(t.Context(), snapshot.CheckRequest{Repair: c.repair, References: refs})
		var want []string
		for _, w := range c.want {
			if c.mark != "" && slices.Contains(mended, w) {
				w += c.mark
			}
			want = append(want, w)
		}
		slices.Sort(want)
		if got := kinds(found); err != nil || !slices.Equal(got, want) {
			t.Fatalf("repair %v: %v\ngot  %s\nwant %s", c.repair, err, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
}

// checkMends damages a store as a power cut and a careless hand do.
func checkMends(t *testing.T, e *env) {
	ctx := t.Context()
	kept, old, bad, orphan := e.layer(t, "kept", "a=1"), e.layer(t, "old", "a=1"), e.layer(t, "bad", "a=1", "b=2"), e.layer(t, "orphan", "a=1")
	must(t, e.Prepare(ctx, "kept", []string{kept}, snapshot.Limit{}), e.Prepare(ctx, "orphan", []string{kept}, snapshot.Limit{}),
		e.Prepare(ctx, "mounted", []string{kept}, snapshot.Limit{}))
	target := e.target(t, "rootfs")
	e.mount(t, "mounted", target, baseA)
	oldDir, err := e.Layer(ctx, old)
	must(t, err)
	badDir, err := e.Layer(ctx, bad)
	must(t, err, os.Remove(filepath.Join(filepath.Dir(oldDir), "manifest")), os.Truncate(filepath.Join(badDir, "b"), 0),
		os.MkdirAll(e.store("layers", ".new-1", "fs"), 0o755), os.MkdirAll(e.store("layers", ".gone-2", "fs"), 0o755),
		os.MkdirAll(e.store("active", ".new-3"), 0o755), os.Chmod(e.store("layers"), 0o755), os.Remove(e.store("empty")),
		os.WriteFile(e.store("chains", ".tmp-4"), nil, 0o600), os.Mkdir(e.store("layers", "strange"), 0o700))
	refs := &snapshot.References{Layers: []string{kept, old, bad, chainID("lost")}, Disks: []string{"kept", "lost"}}
	wantFindings(t, e, refs,
		[]string{
			"half-made layers/.new-1", "half-made layers/.gone-2", "half-made active/.new-3", "wrong-mode layers", "missing-directory empty",
			"half-made chains/.tmp-4", "unrecorded-layer " + old, "orphan-disk orphan", "orphan-layer " + orphan,
		},
		[]string{
			"damaged-layer " + bad, "missing-layer " + chainID("lost"), "missing-disk lost", "foreign layers/strange", "orphan-disk mounted",
		})
	if list, err := e.List(ctx); err != nil || !slices.Equal(list, []string{"kept", "mounted"}) {
		t.Error(list, err)
	}
	// When the image is gone the damaged layer can go.
	must(t, e.Unmount(ctx, target))
	wantFindings(t, e, &snapshot.References{Layers: []string{kept, old}, Disks: []string{"kept"}},
		[]string{"orphan-disk mounted", "orphan-layer " + bad}, []string{"foreign layers/strange"})
}

// checkKeeps: without references, and below a disk, nothing whole is removed.
func checkKeeps(t *testing.T, e *env) {
	ctx := t.Context()
	low, free := e.layer(t, "low", "a=1"), e.layer(t, "free", "a=1")
	must(t, e.Prepare(ctx, "c", []string{low}, snapshot.Limit{}))
	dir, err := e.Layer(ctx, low)
	must(t, err, os.Remove(filepath.Join(dir, "a")))
	wantFindings(t, e, nil, nil, []string{"damaged-layer " + low})
	wantFindings(t, e, &snapshot.References{Disks: []string{"c"}}, []string{"orphan-layer " + free}, []string{"damaged-layer " + low})
	if _, err := e.Layer(ctx, low); err != nil {
		t.Error(err)
	}
	chains, err := filepath.Glob(e.store("active", "c", "chain*"))
	if err != nil || len(chains) != 1 {
		t.Fatal(chains, err)
	}
	must(t, os.Remove(chains[0]), os.Symlink("nowhere", e.store("active", "c", "chain")))
	if _, err := e.Changes(ctx, "c"); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Error(err)
	}
	found, err := e.Check(ctx, snapshot.CheckRequest{Repair: true, References: &snapshot.References{Disks: []string{"c"}}})
	if got := kinds(found); err != nil || !slices.Contains(got, "damaged-disk c") || slices.Contains(got, "orphan-layer "+low+" +") {
		t.Error(got, err)
	}
}
