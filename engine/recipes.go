package engine

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Recipes lie beside the layers, one file for each that could be recorded. A
// layer without one, or with one that a power cut has damaged, is written anew
// when its image is exported: the same files under another digest.

func recipesDir(root string) string { return filepath.Join(root, "recipes") }

// recipePath is where the recipe of a layer lies below the root of an engine.
func recipePath(root, chain string) string {
	return filepath.Join(recipesDir(root), strings.ReplaceAll(chain, ":", "-"))
}

func (e *Engine) recipePath(chain string) string { return recipePath(e.opts.Root, chain) }

// recording is a recipe on its way.
type recording struct {
	*layer.Recorder
	file *os.File
}

// record begins the recipe of a layer whose stream is about to pass.
func (e *Engine) record() (*recording, error) {
	f, err := os.CreateTemp(e.tmpDir(), "recipe-")
	if err != nil {
		return nil, err
	}
	r, err := layer.NewRecorder(f, e.opts.LayerLimits)
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return &recording{r, f}, nil
}

// endRecord keeps the recipe for a layer that is there, or throws it away. That a
// stream cannot be recorded is no failure of who has it.
func (e *Engine) endRecord(r *recording, chain string, there bool) {
	err := errors.Join(r.Close(), r.file.Close())
	if err == nil && there {
		err = os.Rename(r.file.Name(), e.recipePath(chain))
	}
	if err == nil && there {
		return
	}
	if there {
		e.opts.Log.Debug().Err(err).Str("layer", chain).Msg("layer has no recipe")
	}
	if err := os.Remove(r.file.Name()); err != nil {
		e.opts.Log.Warn().Err(err).Msg("remove recipe")
	}
}

// dropRecipe removes the recipe of a layer that is gone.
func (e *Engine) dropRecipe(chain string) error {
	err := os.Remove(e.recipePath(chain))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// sweepRecipes removes those of layers that do not exist any more. A layer that
// is being unpacked has its recipe before it has its name, and is held.
func (e *Engine) sweepRecipes(ctx context.Context) error {
	entries, err := os.ReadDir(recipesDir(e.opts.Root))
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		chain := strings.Replace(entry.Name(), "-", ":", 1)
		_, err := e.layers.unless(chain, func() error {
			there, err := e.opts.Snapshots.HasLayer(ctx, chain)
			if err != nil || there {
				return err
			}
			return os.Remove(filepath.Join(recipesDir(e.opts.Root), entry.Name()))
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// layerSources stream committed layers, lowest first: as they came, where there
// is a recipe.
func (e *Engine) layerSources(ctx context.Context, img store.Image) ([]image.LayerSource, error) {
	var out []image.LayerSource
	steps := stepsOf(img)
	for i, id := range img.Chain {
		anew := func(ctx context.Context) (io.ReadCloser, error) {
			dir, err := e.opts.Snapshots.Layer(ctx, id)
			if err != nil {
				return nil, err
			}
			return diffReader(ctx, dir), nil
		}
		src := image.LayerSource{Open: anew, Step: steps[i]}
		_, packed := e.opts.Snapshots.Packed(ctx, id)
		_, recipe := os.Stat(e.recipePath(id))
		if (packed == nil || recipe == nil) && len(img.DiffIDs) == len(img.Chain) {
			src.DiffID = digest.Digest(img.DiffIDs[i])
			src.Open = func(ctx context.Context) (io.ReadCloser, error) { return e.asItCame(ctx, id) }
			src.Instead = func(ctx context.Context) (io.ReadCloser, error) {
				e.opts.Log.Info().Str(logging.Image, id).Msg("layer is written anew: its recipe does not give what it came as")
				return anew(ctx)
			}
		} else if _, err := e.opts.Snapshots.Layer(ctx, id); err != nil {
			return nil, err
		}
		out = append(out, src)
	}
	return out, nil
}

// stepsOf says how each layer of an image came about, empty where nobody knows.
func stepsOf(img store.Image) []image.Step {
	if len(img.History) == len(img.Chain) {
		return slices.Clone(img.History)
	}
	return make([]image.Step, len(img.Chain))
}

// asItCame streams a layer as it came: of what it is packed in, or by its recipe.
func (e *Engine) asItCame(ctx context.Context, chain string) (io.ReadCloser, error) {
	if stream, err := e.packedStream(ctx, chain); !errors.Is(err, errdefs.ErrNotFound) {
		return stream, err
	}
	dir, err := e.opts.Snapshots.Layer(ctx, chain)
	if err != nil {
		return nil, err
	}
	recipe, err := os.Open(e.recipePath(chain))
	if err != nil {
		return nil, err
	}
	return piped(func(w io.Writer) error {
		defer func() { _ = recipe.Close() }()
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		return errors.Join(layer.Rebuild(ctx, d, recipe, w), d.Close())
	}), nil
}

// piped streams what write writes.
func piped(write func(w io.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	return r
}

// known says under which chain ids layers are here whose image did not state
// what they are: a bare tarball's is named after the archive. The keys are chain
// ids as the OCI has them.
func (e *Engine) known(ctx context.Context) (map[string]string, error) {
	images, err := e.opts.Store.Images(ctx)
	if err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
		return nil, err
	}
	out := map[string]string{}
	for _, img := range images {
		if len(img.DiffIDs) != len(img.Chain) {
			continue
		}
		var proper []string
		for i, d := range img.DiffIDs {
			proper = append(proper, chainID(proper, digest.Digest(d)))
			if proper[i] != img.Chain[i] {
				out[proper[i]] = img.Chain[i]
			}
		}
	}
	return out, nil
}

// diffIDOf is what a layer is known by, when some image has it.
func diffIDOf(images []store.Image, chain string) string {
	for _, img := range images {
		for i, c := range img.Chain {
			if c == chain && len(img.DiffIDs) == len(img.Chain) {
				return img.DiffIDs[i]
			}
		}
	}
	return ""
}
