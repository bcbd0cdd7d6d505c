package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func (m *Mirror) remote(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithPlatform(m.platform),
		remote.WithUserAgent("gantry"), remote.WithJobs(2),
	}
}

// pull finds an image in a registry, or in one of those that mirror it.
func (m *Mirror) pull(ctx context.Context, text string) (*source, error) {
	host, rest, _ := strings.Cut(text, "/")
	var errs []error
	for _, h := range append(append([]string(nil), m.opts.Mirrors[host]...), host) {
		img, repository, err := m.pullOne(ctx, h+"/"+rest)
		if err == nil {
			src, err := m.cached(img)
			if err != nil {
				return nil, err
			}
			src.repository = repository
			return src, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", h, err))
		if ctx.Err() != nil {
			break
		}
		m.opts.Log.Debug().Err(err).Str("registry", h).Msg("image is not to be had here")
	}
	return nil, errors.Join(errs...)
}

func (m *Mirror) pullOne(ctx context.Context, text string) (img v1.Image, repository string, err error) {
	ref, err := reference(text, m.opts.Insecure)
	if err != nil {
		return nil, "", err
	}
	desc, err := remote.Get(ref, m.remote(ctx)...)
	if err != nil {
		return nil, "", classify(err)
	}
	if img, err = desc.Image(); err != nil {
		return nil, "", classify(err)
	}
	return img, ref.Context().Name(), m.check(img)
}

// check refuses what is no image for the platform.
func (m *Mirror) check(img v1.Image) error {
	manifest, err := img.Manifest()
	if err != nil {
		return classify(err)
	}
	if !manifest.Config.MediaType.IsConfig() {
		return fmt.Errorf("an artifact of the type %.80q, not an image: %w", manifest.Config.MediaType, errdefs.ErrUnsupported)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return classify(err)
	}
	if got := config.Platform(); got != nil && got.Architecture != "" && !got.Satisfies(v1.Platform{OS: m.platform.OS, Architecture: m.platform.Architecture}) {
		return fmt.Errorf("the image is for %s, not for %s: %w", got, m.platform.String(), errdefs.ErrUnsupported)
	}
	return nil
}

// push sends an image to a registry.
func (m *Mirror) push(ctx context.Context, img v1.Image, text string) (current bool, err error) {
	ref, err := reference(text, m.opts.Insecure)
	if err != nil {
		return false, err
	}
	if _, ok := ref.(name.Digest); ok {
		return false, fmt.Errorf("a digest is no name to push to: %w", errdefs.ErrInvalid)
	}
	digest, err := img.Digest()
	if err != nil {
		return false, classify(err)
	}
	if there, err := remote.Head(ref, m.remote(ctx)...); err == nil && there.Digest == digest {
		return true, nil
	}
	opts := m.remote(ctx)
	if m.opts.Progress != nil {
		updates := make(chan v1.Update, 16)
		told := make(chan struct{})
		go func() {
			defer close(told)
			for u := range updates {
				if u.Error == nil {
					m.opts.Progress(Progress{u.Complete, u.Total})
				}
			}
		}()
		defer func() { <-told }() // remote.Write closes the channel
		opts = append(opts, remote.WithProgress(updates))
	}
	return false, classify(remote.Write(ref, img, opts...))
}

// classify gives an error of the library its class.
func classify(err error) error {
	if err == nil {
		return nil
	}
	class := errdefs.ErrUnavailable
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		switch {
		case answer.StatusCode == http.StatusNotFound:
			class = errdefs.ErrNotFound
		case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
			class = errdefs.ErrForbidden
		case answer.StatusCode >= 400 && answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests:
			class = errdefs.ErrInvalid
		}
	}
	switch text := err.Error(); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		class = errdefs.ErrAborted
	case strings.Contains(text, "error verifying"), strings.Contains(text, "digest mismatch"):
		class = errdefs.ErrCorrupt // the library has no type for it
	case strings.Contains(text, "no child with platform"):
		class = errdefs.ErrUnsupported
	}
	return fmt.Errorf("%w: %w", class, err)
}
