package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Plan is what a mirror.yaml says: images that are kept in step.
type Plan struct {
	// Every is the time between two looks. Default one hour, at least a minute.
	Every time.Duration `yaml:"every"`
	// Insecure are hosts of registries that are reached without TLS, Mirrors
	// those that are asked before a registry.
	Insecure []string            `yaml:"insecure"`
	Mirrors  map[string][]string `yaml:"mirrors"`
	Images   []Entry             `yaml:"images"`
}

// Entry is one image of a Plan.
type Entry struct {
	// From and To are places as ParsePlace reads them.
	From string `yaml:"from"`
	To   string `yaml:"to"`
	// Platform as in Options.
	Platform string `yaml:"platform"`
}

const (
	everyDefault = time.Hour
	everyLeast   = time.Minute
)

// ParsePlan reads a mirror.yaml. Unknown keys and places that are none are
// errdefs.ErrInvalid.
func ParsePlan(data []byte) (Plan, error) {
	var p Plan
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil {
		return Plan{}, fmt.Errorf("read plan: %w: %w", errdefs.ErrInvalid, err)
	}
	if p.Every == 0 {
		p.Every = everyDefault
	}
	if p.Every < everyLeast {
		return Plan{}, fmt.Errorf("read plan: every %s is less than %s: %w", p.Every, everyLeast, errdefs.ErrInvalid)
	}
	for i, e := range p.Images {
		for _, text := range []string{e.From, e.To} {
			if _, err := ParsePlace(text); err != nil {
				return Plan{}, fmt.Errorf("read plan: image %d: %w", i+1, err)
			}
		}
	}
	return p, nil
}

// Run copies all images of the plan once, one after the other. One that fails
// keeps no other from being copied; the errors are joined. done, where it is set,
// is told of each.
func (m *Mirror) Run(ctx context.Context, p Plan, done func(Entry, Result, error)) error {
	var errs []error
	for _, e := range p.Images {
		res, err := m.entry(ctx, p, e)
		if done != nil {
			done(e, res, err)
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (m *Mirror) entry(ctx context.Context, p Plan, e Entry) (Result, error) {
	from, err := ParsePlace(e.From)
	if err != nil {
		return Result{}, err
	}
	to, err := ParsePlace(e.To)
	if err != nil {
		return Result{}, err
	}
	opts := m.opts
	opts.Insecure = append(append([]string(nil), opts.Insecure...), p.Insecure...)
	if opts.Mirrors == nil {
		opts.Mirrors = p.Mirrors
	}
	if e.Platform != "" {
		opts.Platform = e.Platform
	}
	one, err := New(opts)
	if err != nil {
		return Result{}, err
	}
	return one.Copy(ctx, from, to)
}

// Keep runs the plan now and then as often as it says, until ctx ends. What
// fails is logged, and tried again the next time.
func (m *Mirror) Keep(ctx context.Context, p Plan) {
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	for {
		_ = m.Run(ctx, p, func(e Entry, res Result, err error) {
			log := m.opts.Log.With().Str("from", e.From).Str("to", e.To).Logger()
			switch {
			case ctx.Err() != nil:
			case err != nil:
				log.Warn().Err(err).Msg("image was not mirrored")
			case res.Current:
				log.Debug().Str("digest", res.Digest).Msg("image is up to date")
			default:
				log.Info().Str("digest", res.Digest).Msg("image mirrored")
			}
		})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
