package mirror

import (
	"context"
	"fmt"
	"io"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Options of a Mirror.
type Options struct {
	// Platform is what to take of an image for several, as OS/ARCH[/VARIANT].
	// Default: linux on this host's architecture.
	Platform string
	// Insecure are the hosts of registries that are reached without TLS.
	Insecure []string
	// Mirrors are hosts that are asked before a registry, by its host.
	Mirrors map[string][]string
	// Cache is a directory for blobs that came from a registry, which is made;
	// empty keeps none.
	Cache string
	// Temp is where archives are read from that come as streams; default the
	// system's.
	Temp string
	// Images is the image service, Local the engine; nil where there is none.
	Images ImageService
	Local  Local
	// Progress, where it is set, is told what has been read or sent, from one
	// goroutine at a time.
	Progress func(Progress)
	Log      zerolog.Logger
}

// Progress of a copy.
type Progress struct {
	// Done and Total are bytes; Total is 0 where it is not known.
	Done, Total int64
}

// Local is the engine of this host.
type Local interface {
	// ID is the digest of an image's configuration, empty where it is not known;
	// errdefs.ErrNotFound if there is no such image.
	ID(ctx context.Context, ref string) (string, error)
	// Stored says how the layers of an image are stored where they came from, of
	// those of which that is known and was verified.
	Stored(ctx context.Context, ref string) ([]StoredLayer, error)
	// Export streams an image as an OCI archive, in which those layers are named
	// and not there whose digests are in without; errdefs.ErrNotFound if there is
	// no such image.
	Export(ctx context.Context, ref string, without []string) (io.ReadCloser, error)
	// Import brings the OCI archive in under the name, in place of what had it.
	// Its layers are stored so in the repository from (HOST/NAME), if that is not
	// empty.
	Import(ctx context.Context, ref, from string, archive io.Reader) error
}

// StoredLayer is a layer of the engine as a registry has it.
type StoredLayer struct {
	// Digest of the stored form, and the repository that it came from (HOST/NAME),
	// empty where nobody knows.
	Digest, From string
}

// Mirror copies images. Safe for concurrent use.
type Mirror struct {
	opts     Options
	platform v1.Platform
}

// New checks the options.
func New(opts Options) (*Mirror, error) {
	if opts.Platform == "" {
		opts.Platform = "linux/" + runtime.GOARCH
	}
	p, err := v1.ParsePlatform(opts.Platform)
	if err != nil || p.OS == "" || p.Architecture == "" {
		return nil, fmt.Errorf("platform %q: %w", opts.Platform, errdefs.ErrInvalid)
	}
	return &Mirror{opts: opts, platform: *p}, nil
}

// Result of a copy.
type Result struct {
	// Digest of the manifest.
	Digest string
	// Current is true when the other side had the image already.
	Current bool
	// ID is the image's in the image service, when it went there.
	ID string
}

// Copy brings the image at from to the place to. What is there already is not
// sent. On error the other side is as before, but for blobs of a registry that
// nothing refers to.
//
// errdefs.ErrNotFound: there is no such image. errdefs.ErrForbidden: credentials.
// errdefs.ErrUnavailable: a registry or service does not answer.
// errdefs.ErrUnsupported: not such an image, or no such side here.
// errdefs.ErrCorrupt: digests do not hold.
func (m *Mirror) Copy(ctx context.Context, from, to Place) (Result, error) {
	res, err := m.copy(ctx, from, to)
	if err != nil {
		return res, fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return res, nil
}

func (m *Mirror) copy(ctx context.Context, from, to Place) (res Result, err error) {
	src, err := m.open(ctx, from, to)
	if err != nil {
		return res, err
	}
	defer src.close()
	digest, err := src.Digest()
	if err != nil {
		return res, classify(err)
	}
	res.Digest = digest.String()
	switch to.Kind {
	case Registry:
		res.Current, err = m.push(ctx, src, to.Name)
	case Glance:
		res.ID, res.Current, err = m.toImages(ctx, src, from, to.Name, res.Digest)
	case Engine:
		res.Current, err = m.toLocal(ctx, src, src.repository, to.Name)
	case File:
		err = m.toFile(ctx, src, to.Name)
	case Dir:
		err = m.toDir(src, to.Name)
	}
	if err != nil {
		return res, err
	}
	return res, src.whole()
}

// source is an image that was opened.
type source struct {
	v1.Image
	// repository of a registry that it is from, HOST/NAME, or empty.
	repository string
	// whole says that the copy is done; close comes after it or without it.
	done   []func() error
	closes []func()
}

func (s *source) close() {
	for i := len(s.closes) - 1; i >= 0; i-- {
		s.closes[i]()
	}
}

func (s *source) whole() error {
	for _, f := range s.done {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// open finds the image at a place. Of one of the engine's only what is not at
// the place to is read.
func (m *Mirror) open(ctx context.Context, p, to Place) (*source, error) {
	switch p.Kind {
	case Registry:
		return m.pull(ctx, p.Name)
	case File:
		return m.fromFile(ctx, p.Name)
	case Dir:
		return m.fromDir(p.Name)
	case Glance:
		return m.fromImages(ctx, p.Name)
	case Engine:
		return m.fromLocal(ctx, p.Name, to)
	}
	return nil, fmt.Errorf("a place of kind %q: %w", p.Kind, errdefs.ErrInvalid)
}
