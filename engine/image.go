package engine

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/content"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// ImageInfo is what the engine knows of an imported image.
type ImageInfo struct {
	Ref string
	// ID is the digest of the image's configuration document, empty for one that
	// came without, or was made here.
	ID     string
	Config image.Config
	// RootFS is true for a bare root file system and for that of a disk image,
	// which have no configuration.
	RootFS bool
	// SizeBytes is the unpacked size.
	SizeBytes int64
}

// ImportRequest brings an image into the engine.
type ImportRequest struct {
	// Ref is the name to import it under.
	Ref string
	// Content streams the archive. Its last error (a hash that differs) ends
	// the import.
	Content io.Reader
	// File, where it is set, is the regular file that Content streams, from its
	// beginning: a disk image is read in it instead of in a copy. What changes in
	// it meanwhile is as if the image had come so.
	File *os.File
	// From is the repository of a registry where the layers are stored as they are
	// in Content, HOST/NAME; empty where that is not known.
	From string
	// Replace takes the name from an image that has it. Containers that were made
	// of that one keep its layers.
	Replace bool
	// DiskFormat and ContainerFormat are what the image service declares.
	DiskFormat, ContainerFormat string
}

// Image returns an imported image, errdefs.ErrNotFound if it is not here.
func (e *Engine) Image(ctx context.Context, ref string) (ImageInfo, error) {
	rec, err := e.opts.Store.Image(ctx, ref)
	if err != nil {
		return ImageInfo{}, err
	}
	return imageInfo(rec), nil
}

func imageInfo(rec store.Image) ImageInfo {
	return ImageInfo{Ref: rec.Ref, ID: rec.ID, Config: rec.Config, RootFS: rec.RootFS, SizeBytes: rec.SizeBytes}
}

// Import reads an archive, unpacks the layers that are not here yet and
// records the image. On error nothing of it is left but layers that other
// images have. A present reference is success and reads nothing, unless it is to
// be replaced.
//
// A *MissingBase says that the archive is a delta over an image that has to be
// imported first. errdefs.ErrInvalid says that it is no image, or a hostile one,
// errdefs.ErrUnsupported that its format is not supported, errdefs.ErrCorrupt
// that it is damaged, errdefs.ErrExhausted that the disk is full.
func (e *Engine) Import(ctx context.Context, req ImportRequest) (ImageInfo, error) {
	old, err := e.opts.Store.Image(ctx, req.Ref)
	if err == nil && !req.Replace {
		return imageInfo(old), nil
	}
	end, err := e.begin(ctx, opImport, req.Ref, nil)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("import %s: %w", req.Ref, err)
	}
	defer end()
	rec, err := e.bring(ctx, req)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("import %s: %w", req.Ref, err)
	}
	if old.Ref == "" {
		return imageInfo(rec), nil
	}
	return imageInfo(rec), e.dropLayers(ctx, old.Chain)
}

// bring unpacks the image while it comes where its format allows that, and
// otherwise when all of it is here.
func (e *Engine) bring(ctx context.Context, req ImportRequest) (store.Image, error) {
	head := make([]byte, image.HeadLen)
	n, err := io.ReadFull(req.Content, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return store.Image{}, err
	}
	head = head[:n]
	req.Content = io.MultiReader(bytes.NewReader(head), req.Content)
	if l, ok := image.OpenStream(head, req.Content, e.openOptions(req)); ok {
		return e.unpackStream(ctx, req, l)
	}
	if req.File != nil && image.IsDisk(head) {
		return e.unpackDisk(ctx, req)
	}
	archive, err := content.NewSpool(e.tmpDir())
	if err != nil {
		return store.Image{}, err
	}
	defer func() { _ = archive.Close() }()
	if _, err := io.Copy(archive, req.Content); err != nil {
		return store.Image{}, err
	}
	if err := failpoint.Hit("engine.import.spool"); err != nil {
		return store.Image{}, err
	}
	return e.inTime(ctx, func(ctx context.Context) (store.Image, error) { return e.unpack(ctx, req, archive) })
}

func (e *Engine) openOptions(req ImportRequest) image.OpenOptions {
	return image.OpenOptions{
		ContainerFormat: req.ContainerFormat, DiskFormat: req.DiskFormat, SpoolDir: e.tmpDir(), Limits: e.opts.ImageLimits, Disk: e.readDisk,
	}
}

// unpackStream makes an image of one layer that comes as a stream. What it is
// known by shows at its end: until then the layer has a name that nobody asks
// for. The download is part of it, so Options.ImageTime does not bound it.
func (e *Engine) unpackStream(ctx context.Context, req ImportRequest, l image.Layer) (store.Image, error) {
	chain := digest.FromString(rand.Text()).String()
	rec := store.Image{Ref: req.Ref, RootFS: true, Imported: time.Now(), LastUsed: time.Now(), Chain: []string{chain}, DiffIDs: []string{""}}
	release := e.layers.hold(chain)
	err := e.unpackLayers(ctx, []image.Layer{l}, &rec)
	if err == nil {
		var letGo func()
		letGo, err = e.adoptLayer(ctx, &rec)
		defer letGo()
	}
	if err == nil {
		rec.SizeBytes = sum(rec.LayerBytes)
		if err = failpoint.Hit("engine.import.record"); err == nil {
			err = e.opts.Store.PutImage(ctx, rec)
		}
	}
	release()
	if err != nil || rec.Chain[0] != chain {
		err = errors.Join(err, e.dropLayers(context.WithoutCancel(ctx), []string{chain}))
	}
	return rec, err
}

// unpackDisk makes an image of the disk image in the request's file, which is
// read in its place: nothing is copied, and no digest of the file is taken.
func (e *Engine) unpackDisk(ctx context.Context, req ImportRequest) (store.Image, error) {
	st, err := req.File.Stat()
	if err != nil {
		return store.Image{}, err
	}
	a, err := image.Open(ctx, req.File, st.Size(), e.openOptions(req))
	if err != nil {
		return store.Image{}, err
	}
	defer a.Close()
	return e.inTime(ctx, func(ctx context.Context) (store.Image, error) { return e.unpackStream(ctx, req, a.Layers()[0]) })
}

// adoptLayer takes the layer of an image that has the same one already, which
// stays until letGo is called.
func (e *Engine) adoptLayer(ctx context.Context, rec *store.Image) (letGo func(), err error) {
	letGo = func() {}
	images, err := e.opts.Store.Images(ctx)
	if err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
		return letGo, err
	}
	for _, img := range images {
		if len(img.Chain) == 0 || len(img.DiffIDs) != len(img.Chain) || img.DiffIDs[0] != rec.DiffIDs[0] {
			continue
		}
		other := img.Chain[0]
		letGo = e.layers.hold(other)
		if there, err := e.opts.Snapshots.HasLayer(ctx, other); err != nil || there {
			rec.Chain = []string{other}
			return letGo, err
		}
		letGo() // it has gone since it was listed
		letGo = func() {}
	}
	return letGo, nil
}

// inTime is unpack within Options.ImageTime.
func (e *Engine) inTime(ctx context.Context, unpack func(context.Context) (store.Image, error)) (store.Image, error) {
	if e.opts.ImageTime == 0 {
		return unpack(ctx)
	}
	limited, cancel := context.WithTimeout(ctx, e.opts.ImageTime)
	defer cancel()
	rec, err := unpack(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return rec, errdefs.WithPublic(fmt.Errorf("%w: %w", errdefs.ErrInvalid, limited.Err()),
			fmt.Sprintf("the image takes longer than %s to unpack", e.opts.ImageTime))
	}
	return rec, err
}

// unpack reads the archive's layers and records the image.
func (e *Engine) unpack(ctx context.Context, req ImportRequest, archive *content.Spool) (store.Image, error) {
	a, err := image.Open(ctx, archive, archive.Size(), e.openOptions(req))
	if err != nil {
		return store.Image{}, err
	}
	defer a.Close()
	rec := store.Image{
		Ref: req.Ref, ID: a.ID().String(), Config: a.Config(), RootFS: a.Kind() == image.Rootfs || a.Kind() == image.DiskImage, Imported: time.Now(), LastUsed: time.Now(),
	}
	if base := a.Base(); base != "" {
		defer e.images.hold(base)()
		if err := e.putBelow(ctx, base, &rec); err != nil {
			return rec, err
		}
	}
	if steps := a.History(); steps != nil {
		rec.History = append(stepsOf(rec), steps...)
	}
	rec.Stored = append(storedOf(rec), storedAs(a, req.From)...)
	name := archive.Digest()
	if a.Kind() == image.DiskImage {
		// the same bytes may be a layer's tar, which holds something else
		name = digest.FromString("root of the disk image " + name.String())
	}
	layers := a.Layers()
	if err := e.chainOf(ctx, &rec, layers, name); err != nil {
		return rec, err
	}
	if top := len(layers) - 1; top >= 0 {
		layers = append(slices.Clone(layers[:top]), lastLayer{layers[top], func() error { return errors.Join(a.Close(), archive.Close()) }})
	}
	chains := rec.Chain
	release := e.layers.hold(chains...)
	if err = e.unpackLayers(ctx, layers, &rec); err == nil {
		err = e.findStored(ctx, &rec)
	}
	if err == nil {
		rec.SizeBytes = sum(rec.LayerBytes)
		if err = failpoint.Hit("engine.import.record"); err == nil {
			err = e.opts.Store.PutImage(ctx, rec)
		}
	}
	release()
	if err != nil {
		return rec, errors.Join(err, e.dropLayers(context.WithoutCancel(ctx), chains))
	}
	return rec, nil
}

// lastLayer is the layer with which an archive has served: closing its reader
// gives the archive's room back, so that what is synced for the layer is the
// layer.
type lastLayer struct {
	image.Layer
	served func() error
}

// Open implements image.Layer.
func (l lastLayer) Open(ctx context.Context) (io.ReadCloser, error) {
	r, err := l.Layer.Open(ctx)
	return lastReader{r, l.served}, err
}

type lastReader struct {
	io.ReadCloser
	served func() error
}

// Close implements io.Closer.
func (l lastReader) Close() error { return errors.Join(l.ReadCloser.Close(), l.served()) }

// MissingBase says that an archive is a delta over an image that is not here. Its
// class is errdefs.ErrNotFound.
type MissingBase struct {
	// Base is what the image that is needed is imported as.
	Base string
}

// Error implements error.
func (m *MissingBase) Error() string {
	return fmt.Sprintf("the image goes over image %s, which is not here", m.Base)
}

// Unwrap implements the class of the error.
func (m *MissingBase) Unwrap() error { return errdefs.ErrNotFound }

// maxChain is how many layers an image may have with all those below it: what
// overlayfs can mount (OVL_MAX_STACK in its ovl_entry.h), less those that a
// container adds.
const maxChain = 480

// putBelow puts the layers of an image below those of rec, which has none yet.
func (e *Engine) putBelow(ctx context.Context, base string, rec *store.Image) error {
	below, err := e.opts.Store.Image(ctx, base)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return &MissingBase{base}
	case err != nil:
		return err
	case len(below.DiffIDs) != len(below.Chain) || len(below.LayerBytes) != len(below.Chain):
		return &MissingBase{base} // of an earlier schema: it has to be imported again
	case len(below.Chain) >= maxChain:
		return errdefs.WithPublic(fmt.Errorf("image over %s: %d layers: %w", base, len(below.Chain), errdefs.ErrInvalid),
			"the image is a snapshot of a snapshot too many times over")
	}
	rec.Chain, rec.DiffIDs = slices.Clone(below.Chain), slices.Clone(below.DiffIDs)
	rec.LayerBytes, rec.History, rec.Stored = slices.Clone(below.LayerBytes), slices.Clone(below.History), storedOf(below)
	return nil
}

// chainOf names the layers, lowest first, over those that the record has. The
// diff id of one that states none stays empty until it is unpacked.
func (e *Engine) chainOf(ctx context.Context, rec *store.Image, layers []image.Layer, archive digest.Digest) error {
	known, err := e.known(ctx)
	if err != nil {
		return err
	}
	for _, l := range layers {
		diffID, name := l.DiffID(), l.DiffID()
		if name == "" {
			// a bare tarball states no digest of its contents: the archive's
			// own identifies it as well
			name = archive
		}
		chain := chainID(rec.Chain, name)
		if other, ok := known[chain]; ok {
			chain = other
		}
		rec.Chain, rec.DiffIDs = append(rec.Chain, chain), append(rec.DiffIDs, diffID.String())
	}
	return nil
}

func sum(sizes []int64) (total int64) {
	for _, n := range sizes {
		total += n
	}
	return total
}

// unpackLayers makes those layers, the top ones of the record, that are not here
// yet, and notes the size of each.
func (e *Engine) unpackLayers(ctx context.Context, layers []image.Layer, rec *store.Image) error {
	below := len(rec.Chain) - len(layers)
	for n, l := range layers {
		i := below + n
		there, err := e.opts.Snapshots.HasLayer(ctx, rec.Chain[i])
		read := false
		switch {
		case err != nil:
		case there: // and perhaps packed
			err = e.unpacked(ctx, rec.Chain[:i+1])
		default:
			err = e.opts.Snapshots.Unpack(ctx, rec.Chain[i], func(dir string) error { read = true; return e.apply(ctx, dir, l, rec, i) })
		}
		if !read && len(rec.Stored) > i {
			rec.Stored[i] = image.Stored{} // nothing was verified
		}
		if err == nil && rec.DiffIDs[i] == "" {
			rec.DiffIDs[i], err = e.diffIDHere(ctx, rec.Chain[i])
		}
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		if err := failpoint.Hit("engine.import.layer"); err != nil {
			return err
		}
		size, err := e.layerSize(ctx, rec.Chain[i])
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		rec.LayerBytes = append(rec.LayerBytes, size)
	}
	return nil
}

// diffIDHere finds what a layer that is here already is known by. When no image
// tells, it is its own name: a digest too.
func (e *Engine) diffIDHere(ctx context.Context, chain string) (string, error) {
	images, err := e.opts.Store.Images(ctx)
	if err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
		return "", err
	}
	return cmp.Or(diffIDOf(images, chain), chain), nil
}

// apply unpacks layer i of an image into dir. Directories that it only implies
// take after those of the layers below.
func (e *Engine) apply(ctx context.Context, dir string, l image.Layer, rec *store.Image, i int) error {
	below := rec.Chain[:i]
	r, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	target, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer target.Close()
	recipe, err := e.record()
	if err != nil {
		return err
	}
	res, err := e.unpackLayer(ctx, target, io.TeeReader(r, recipe), layer.Options{Limits: e.opts.LayerLimits, Verified: l.DiffID()})
	e.endRecord(recipe, rec.Chain[i], err == nil)
	rec.DiffIDs[i] = res.DiffID.String()
	if err != nil || len(res.ImplicitDirs) == 0 || len(below) == 0 {
		return err
	}
	var lower []*os.File
	defer func() {
		for _, f := range lower {
			f.Close()
		}
	}()
	for i := len(below) - 1; i >= 0; i-- { // topmost first
		name, err := e.opts.Snapshots.Layer(ctx, below[i])
		if err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		lower = append(lower, f)
	}
	return layer.Inherit(target, res.ImplicitDirs, lower)
}

// chainID names a layer by all that is below it (OCI image-spec config.md,
// Layer ChainID).
func chainID(below []string, diffID digest.Digest) string {
	if len(below) == 0 {
		return diffID.String()
	}
	return digest.FromString(below[len(below)-1] + " " + diffID.String()).String()
}
