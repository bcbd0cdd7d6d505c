package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"github.com/opencontainers/go-digest"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/glance"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
	"github.com/gantry-project/gantry/mirror"
)

// mirrorImages implements mirror.ImageService by Glance.
type mirrorImages struct{ glance *glance.Client }

var _ mirror.ImageService = mirrorImages{}

// UserImages is the image service as the user of the environment's OS_ variables
// sees it.
func UserImages(log zerolog.Logger) (mirror.ImageService, error) {
	opts, err := openstack.FromEnvironment(os.Getenv)
	if err != nil {
		return nil, err
	}
	session, err := openstack.NewSession(opts, nil)
	if err != nil {
		return nil, err
	}
	return mirrorImages{glance.New(session.Service("image", nil), glance.Options{}, log)}, nil
}

// auth is the session's own.
func (mirrorImages) auth() openstack.UserAuth { return openstack.UserAuth{} }

func serviceImage(img glance.Image) mirror.ServiceImage {
	return mirror.ServiceImage{ID: img.ID, Name: img.Name, ContainerFormat: img.ContainerFormat, Properties: img.Properties}
}

// Find implements mirror.ImageService.
func (s mirrorImages) Find(ctx context.Context, properties map[string]string) ([]mirror.ServiceImage, error) {
	list, err := s.glance.List(ctx, s.auth(), glance.Filter{Status: glance.StatusActive, Properties: properties})
	out := make([]mirror.ServiceImage, len(list))
	for i, img := range list {
		out[i] = serviceImage(img)
	}
	return out, err
}

// Named implements mirror.ImageService.
func (s mirrorImages) Named(ctx context.Context, name string) (mirror.ServiceImage, error) {
	if uuid.Validate(name) == nil {
		img, err := s.glance.Stat(ctx, s.auth(), name)
		if err == nil && !img.Active() {
			err = fmt.Errorf("image %s is %s: %w", name, img.Status, errdefs.ErrNotFound)
		}
		if err == nil || !errors.Is(err, errdefs.ErrNotFound) {
			return serviceImage(img), err
		}
	}
	list, err := s.glance.List(ctx, s.auth(), glance.Filter{Status: glance.StatusActive, Name: name})
	switch {
	case err != nil:
		return mirror.ServiceImage{}, err
	case len(list) == 0:
		return mirror.ServiceImage{}, fmt.Errorf("image %s: %w", name, errdefs.ErrNotFound)
	case len(list) > 1:
		return mirror.ServiceImage{}, fmt.Errorf("%d images are called %s; give the id: %w", len(list), name, errdefs.ErrConflict)
	}
	return serviceImage(list[0]), nil
}

// Open implements mirror.ImageService.
func (s mirrorImages) Open(ctx context.Context, id string) (io.ReadCloser, error) {
	img, err := s.glance.Stat(ctx, s.auth(), id)
	if err != nil {
		return nil, err
	}
	return s.glance.Open(ctx, s.auth(), img)
}

// Add implements mirror.ImageService.
func (s mirrorImages) Add(ctx context.Context, name string, properties map[string]string, data io.Reader) (string, error) {
	img, err := s.glance.Create(ctx, s.auth(), glance.NewImage{Name: name, DiskFormat: "raw", ContainerFormat: "docker", Properties: properties})
	if err != nil {
		return "", err
	}
	if err := s.glance.Upload(ctx, s.auth(), img.ID, data); err != nil {
		return "", errors.Join(err, s.glance.Delete(context.WithoutCancel(ctx), s.auth(), img.ID))
	}
	return img.ID, nil
}

// Hide implements mirror.ImageService.
func (s mirrorImages) Hide(ctx context.Context, id string) error {
	return s.glance.Update(ctx, s.auth(), id, glance.Patch{Hide: true})
}

// mirrorEngine implements mirror.Local by the engine of this process.
type mirrorEngine struct{ engine *engine.Engine }

var _ mirror.Local = mirrorEngine{}

// ID implements mirror.Local.
func (l mirrorEngine) ID(ctx context.Context, ref string) (string, error) {
	img, err := l.engine.Image(ctx, ref)
	return img.ID, err
}

// Stored implements mirror.Local.
func (l mirrorEngine) Stored(ctx context.Context, ref string) ([]mirror.StoredLayer, error) {
	layers, err := l.engine.History(ctx, ref)
	var out []mirror.StoredLayer
	for _, l := range layers {
		if l.Stored.Digest != "" {
			out = append(out, mirror.StoredLayer{Digest: l.Stored.Digest.String(), From: l.Stored.From})
		}
	}
	return out, err
}

// Export implements mirror.Local.
func (l mirrorEngine) Export(ctx context.Context, ref string, without []string) (io.ReadCloser, error) {
	digests := make([]digest.Digest, len(without))
	for i, d := range without {
		digests[i] = digest.Digest(d)
	}
	out, err := l.engine.ExportImage(ctx, ref, digests...)
	return out.Content, err
}

// Import implements mirror.Local.
func (l mirrorEngine) Import(ctx context.Context, ref, from string, archive io.Reader) error {
	_, err := l.engine.Import(ctx, engine.ImportRequest{
		Ref: ref, Content: archive, ContainerFormat: "docker", DiskFormat: "raw", From: from, Replace: true,
	})
	return err
}

// keepMirrors keeps the images of the plan in file in step until ctx ends; the
// returned function waits for that. An empty name is no plan.
func keepMirrors(ctx context.Context, file, state string, images mirror.ImageService, local mirror.Local, log zerolog.Logger) (wait func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read plan of mirrors: %w", err)
	}
	plan, err := mirror.ParsePlan(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	m, err := mirror.New(mirror.Options{Cache: filepath.Join(state, "mirror"), Images: images, Local: local, Log: log})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Keep(ctx, plan)
	}()
	return func() { <-done }, nil
}
