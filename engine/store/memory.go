package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Memory is a Store that ends with the process. The zero value is not ready;
// use NewMemory.
type Memory struct {
	mu         sync.Mutex
	containers map[string]Container // guarded by mu
	images     map[string]Image     // guarded by mu
	blocks     map[string]uint32    // guarded by mu
	leases     map[string]Lease     // guarded by mu
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		containers: map[string]Container{}, images: map[string]Image{},
		blocks: map[string]uint32{}, leases: map[string]Lease{},
	}
}

// Containers implements Store.
func (m *Memory) Containers(context.Context) ([]Container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.containers), func(a, b Container) int { return cmp.Compare(a.ID, b.ID) }), nil
}

// Container implements Store.
func (m *Memory) Container(_ context.Context, id string) (Container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.containers[id]
	if !ok {
		return c, fmt.Errorf("record of container %s: %w", id, errdefs.ErrNotFound)
	}
	return c, nil
}

// CreateContainer implements Store.
func (m *Memory) CreateContainer(_ context.Context, c Container) (Container, error) {
	if c.ID == "" {
		return c, fmt.Errorf("record of a container without id: %w", errdefs.ErrInvalid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.containers[c.ID]; ok {
		return c, fmt.Errorf("record of container %s: %w", c.ID, errdefs.ErrAlreadyExists)
	}
	base, ok := m.blocks[c.ID]
	if !ok {
		var err error
		if base, err = freeBlock(maps.Values(m.blocks)); err != nil {
			return c, fmt.Errorf("record of container %s: %w", c.ID, err)
		}
	}
	c.IDBase = base
	m.blocks[c.ID], m.containers[c.ID] = base, c
	m.used(c.Image, c.Created)
	return c, nil
}

// used notes when an image was used last. The caller holds mu.
func (m *Memory) used(ref string, at time.Time) {
	if img, ok := m.images[ref]; ok && img.LastUsed.Before(at) {
		img.LastUsed = at
		m.images[ref] = img
	}
}

// PutContainer implements Store.
func (m *Memory) PutContainer(_ context.Context, c Container) error {
	if c.ID == "" {
		return fmt.Errorf("record of a container without id: %w", errdefs.ErrInvalid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.containers[c.ID] = c
	return nil
}

// DeleteContainer implements Store.
func (m *Memory) DeleteContainer(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.containers[id]; ok {
		m.used(c.Image, time.Now())
	}
	delete(m.containers, id)
	delete(m.blocks, id)
	return nil
}

// Image implements Store.
func (m *Memory) Image(_ context.Context, ref string) (Image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	img, ok := m.images[ref]
	if !ok {
		return img, fmt.Errorf("record of image %s: %w", ref, errdefs.ErrNotFound)
	}
	return img, nil
}

// Images implements Store.
func (m *Memory) Images(context.Context) ([]Image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.images), func(a, b Image) int { return cmp.Compare(a.Ref, b.Ref) }), nil
}

// PutImage implements Store.
func (m *Memory) PutImage(_ context.Context, img Image) error {
	if img.Ref == "" {
		return fmt.Errorf("record of an image without reference: %w", errdefs.ErrInvalid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.images[img.Ref] = img
	return nil
}

// DeleteImage implements Store.
func (m *Memory) DeleteImage(_ context.Context, ref string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.containers {
		if c.Image == ref {
			return fmt.Errorf("record of image %s: container %s uses it: %w", ref, c.ID, errdefs.ErrConflict)
		}
	}
	now := time.Now()
	for _, l := range m.leases {
		if l.Live(now) && slices.Contains(l.Images, ref) {
			return fmt.Errorf("record of image %s: lease %s needs it: %w", ref, l.ID, errdefs.ErrConflict)
		}
	}
	delete(m.images, ref)
	return nil
}

// Leases implements Reader.
func (m *Memory) Leases(context.Context) ([]Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.leases), func(a, b Lease) int { return cmp.Compare(a.ID, b.ID) }), nil
}

// PutLease implements Store.
func (m *Memory) PutLease(_ context.Context, l Lease) error {
	if l.ID == "" {
		return fmt.Errorf("record of a lease without id: %w", errdefs.ErrInvalid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leases[l.ID] = l
	return nil
}

// DeleteLease implements Store.
func (m *Memory) DeleteLease(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.leases, id)
	return nil
}

// Damaged implements Store.
func (m *Memory) Damaged(context.Context) ([]string, error) { return nil, nil }

// Close implements Store.
func (m *Memory) Close() error { return nil }
