package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Containers implements Reader.
func (b *Bolt) Containers(context.Context) ([]Container, error) {
	return list[Container](b, bucketContainers, func(string) {})
}

// Container implements Reader.
func (b *Bolt) Container(_ context.Context, id string) (c Container, err error) {
	err = b.get(bucketContainers, id, &c)
	return c, err
}

// CreateContainer implements Store.
func (b *Bolt) CreateContainer(_ context.Context, c Container) (Container, error) {
	if c.ID == "" {
		return c, fmt.Errorf("record of a container without id: %w", errdefs.ErrInvalid)
	}
	key := []byte(c.ID)
	err := b.update(bucketContainers, c.ID, func(tx *bolt.Tx) (err error) {
		records := tx.Bucket(bucketContainers)
		if records.Get(key) != nil {
			return errdefs.ErrAlreadyExists
		}
		if c.IDBase, err = block(tx.Bucket(bucketBlocks), key); err != nil {
			return err
		}
		raw, err := encode(c)
		if err != nil {
			return err
		}
		if err := used(tx, c.Image, c.Created); err != nil {
			return err
		}
		return records.Put(key, raw)
	})
	return c, err
}

// used notes when an image was used last; one that cannot be read is left alone.
func used(tx *bolt.Tx, ref string, at time.Time) error {
	images := tx.Bucket(bucketImages)
	raw := images.Get([]byte(ref))
	var img Image
	readable := raw != nil && decode(raw, &img) == nil
	if !readable || !img.LastUsed.Before(at) {
		return nil
	}
	img.LastUsed = at
	raw, err := encode(img)
	if err != nil {
		return err
	}
	return images.Put([]byte(ref), raw)
}

// block returns the block of the container, a new one if it has none.
func block(blocks *bolt.Bucket, container []byte) (uint32, error) {
	if raw := blocks.Get(container); len(raw) == 4 {
		return binary.BigEndian.Uint32(raw), nil
	}
	var taken []uint32
	err := blocks.ForEach(func(_, raw []byte) error {
		if len(raw) == 4 {
			taken = append(taken, binary.BigEndian.Uint32(raw))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	base, err := freeBlock(slices.Values(taken))
	if err != nil {
		return 0, err
	}
	return base, blocks.Put(container, binary.BigEndian.AppendUint32(nil, base))
}

// PutContainer implements Store.
func (b *Bolt) PutContainer(_ context.Context, c Container) error {
	return b.put(bucketContainers, c.ID, c)
}

// DeleteContainer implements Store.
func (b *Bolt) DeleteContainer(_ context.Context, id string) error {
	for _, bucket := range [][]byte{bucketContainers, bucketBlocks} {
		there, err := b.has(bucket, id)
		if err != nil {
			return err
		}
		if there {
			return b.update(bucketContainers, id, func(tx *bolt.Tx) error { return deleteContainer(tx, []byte(id)) })
		}
	}
	return nil
}

func deleteContainer(tx *bolt.Tx, key []byte) error {
	records := tx.Bucket(bucketContainers)
	var c Container
	if raw := records.Get(key); raw != nil && decode(raw, &c) == nil {
		if err := used(tx, c.Image, time.Now()); err != nil {
			return err
		}
	}
	if err := records.Delete(key); err != nil {
		return err
	}
	return tx.Bucket(bucketBlocks).Delete(key)
}

// Image implements Reader.
func (b *Bolt) Image(_ context.Context, ref string) (img Image, err error) {
	err = b.get(bucketImages, ref, &img)
	return img, err
}

// Images implements Reader.
func (b *Bolt) Images(context.Context) ([]Image, error) {
	return list[Image](b, bucketImages, func(string) {})
}

// PutImage implements Store.
func (b *Bolt) PutImage(_ context.Context, img Image) error {
	return b.put(bucketImages, img.Ref, img)
}

// DeleteImage implements Store.
func (b *Bolt) DeleteImage(_ context.Context, ref string) error {
	return b.update(bucketImages, ref, func(tx *bolt.Tx) error {
		err := tx.Bucket(bucketContainers).ForEach(func(k, raw []byte) error {
			var c Container
			if err := decode(raw, &c); err != nil || c.Image == ref {
				return fmt.Errorf("container %s uses it: %w", k, errdefs.ErrConflict)
			}
			return nil
		})
		if err != nil {
			return err
		}
		now := time.Now()
		err = tx.Bucket(bucketLeases).ForEach(func(k, raw []byte) error {
			var l Lease
			if err := decode(raw, &l); err != nil || l.Live(now) && slices.Contains(l.Images, ref) {
				return fmt.Errorf("lease %s needs it: %w", k, errdefs.ErrConflict)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketImages).Delete([]byte(ref))
	})
}

// Leases implements Reader.
func (b *Bolt) Leases(context.Context) ([]Lease, error) {
	return list[Lease](b, bucketLeases, func(string) {})
}

// PutLease implements Store.
func (b *Bolt) PutLease(_ context.Context, l Lease) error { return b.put(bucketLeases, l.ID, l) }

// DeleteLease implements Store.
func (b *Bolt) DeleteLease(_ context.Context, id string) error { return b.remove(bucketLeases, id) }

// Damaged implements Reader.
func (b *Bolt) Damaged(context.Context) ([]string, error) {
	var bad []string
	note := func(key string) { bad = append(bad, key) }
	if _, err := list[Container](b, bucketContainers, note); err != nil {
		return nil, err
	}
	if _, err := list[Image](b, bucketImages, note); err != nil {
		return nil, err
	}
	if _, err := list[Lease](b, bucketLeases, note); err != nil {
		return nil, err
	}
	return bad, nil
}
