package api_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The fake's images are tarballs of nothing: what it exports can be imported.

func (f *fake) archive(text string) engine.Committed {
	data := text + strings.Repeat("\x00", 257-len(text)) + "ustar\x00" + strings.Repeat("\x00", 1273)
	return engine.Committed{Content: io.NopCloser(strings.NewReader(data)), Size: int64(len(data))}
}

func (f *fake) Commit(_ context.Context, id engine.ContainerID) (engine.Committed, error) {
	return f.archive("disk of " + string(id)), f.with(id, func(*fakeContainer) error { return nil })
}

func (f *fake) CommitDelta(ctx context.Context, id engine.ContainerID) (engine.Committed, error) {
	return f.Commit(ctx, id)
}

func (f *fake) CommitImage(_ context.Context, id engine.ContainerID, ref string) (engine.ImageInfo, error) {
	img := engine.ImageInfo{Ref: ref, SizeBytes: 1}
	err := f.with(id, func(*fakeContainer) error { return nil })
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.images[ref] = img
	}
	return img, err
}

func (f *fake) Export(ctx context.Context, id engine.ContainerID) (io.ReadCloser, error) {
	c, err := f.Commit(ctx, id)
	return c.Content, err
}

func (f *fake) Changes(_ context.Context, id engine.ContainerID) ([]engine.Change, error) {
	return []engine.Change{{Kind: engine.Added, Path: "/root/new"}}, f.with(id, func(*fakeContainer) error { return nil })
}

func (f *fake) ExportImage(ctx context.Context, ref string, _ ...digest.Digest) (engine.Committed, error) {
	_, err := f.Image(ctx, ref)
	return f.archive("image " + ref), err
}

func (f *fake) History(ctx context.Context, ref string) ([]engine.LayerInfo, error) {
	_, err := f.Image(ctx, ref)
	return []engine.LayerInfo{{DiffID: "sha256:1", SizeBytes: -1}}, err
}

func (f *fake) Collect(ctx context.Context, o engine.GCOptions) (r engine.GCReport, err error) {
	images, _ := f.Images(ctx)
	for _, img := range images {
		if o.DryRun || f.RemoveImage(ctx, img.Ref) == nil {
			r.Images = append(r.Images, img.Ref)
		}
	}
	return r, nil
}

func TestImagesGoOutAndIn(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		_, err := f.Create(ctx, api.Create{ID: "c", Image: "busybox", Start: &api.Start{Args: []string{"/bin/sh", "-c", "echo 1 > /root/new; " + obeys}}})
		check(t, err)
		logs, err := f.Logs(ctx, "c", api.LogsRequest{Follow: true})
		check(t, err)
		_, err = io.ReadFull(logs, make([]byte, 6))
		check(t, err)
		check(t, logs.Close())

		diff, err := f.Changes(ctx, "c")
		check(t, err)
		if !strings.Contains(fmt.Sprint(diff), "{added /root/new}") {
			t.Errorf("changes: %+v", diff)
		}
		img, err := f.CommitImage(ctx, "c", "mine")
		if err != nil || img.Ref != "mine" || img.RootFS || img.Size == 0 {
			t.Errorf("commit: %+v %v", img, err)
		}
		want(t, "commit without a name", second(f.CommitImage(ctx, "c", "")), errdefs.ErrInvalid)
		layers, err := f.History(ctx, "mine")
		if err != nil || len(layers) == 0 || layers[0].DiffID == "" {
			t.Errorf("history: %+v %v", layers, err)
		}
		into := func(name string, r io.ReadCloser, err error) {
			t.Helper()
			check(t, err)
			file, err := os.Create(filepath.Join(t.TempDir(), "archive"))
			check(t, err)
			defer file.Close()
			_, err = io.Copy(file, r)
			check(t, err)
			check(t, r.Close())
			_, err = file.Seek(0, io.SeekStart)
			check(t, err)
			got, err := f.Import(ctx, api.Import{Ref: name}, file)
			if err != nil || got.Ref != name {
				t.Errorf("import of %s: %+v %v", name, got, err)
			}
		}
		r, err := f.ExportImage(ctx, "mine")
		into("exported-image", r, err)
		r, err = f.Export(ctx, "c")
		into("exported-root", r, err)
		r, err = f.CommitDelta(ctx, "c")
		into("delta", r, err)
		for what, err := range map[string]error{
			"export": second(f.Export(ctx, "absent")), "changes": second(f.Changes(ctx, "absent")),
			"commit": second(f.CommitImage(ctx, "absent", "x")), "delta": second(f.CommitDelta(ctx, "absent")),
			"image": second(f.ExportImage(ctx, "absent")), "history": second(f.History(ctx, "absent")),
		} {
			want(t, what, err, errdefs.ErrNotFound)
		}
		want(t, "prune", second(f.Prune(ctx, api.Prune{KeepFor: -1})), errdefs.ErrInvalid)
		for _, dry := range []bool{true, false} {
			gone, err := f.Prune(ctx, api.Prune{DryRun: dry})
			if err != nil || len(gone.Images) < 4 {
				t.Errorf("prune (dry: %t): %+v %v", dry, gone, err)
			}
		}
		if left, err := f.Images(ctx); err != nil || len(left) != 1 {
			t.Errorf("left: %+v %v", left, err)
		}
		check(t, f.Remove(ctx, "c", true, api.Change{}))
	})
}
