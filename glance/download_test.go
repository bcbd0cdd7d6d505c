package glance_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/gantry-project/gantry/glance"
	"github.com/gantry-project/gantry/glance/glancetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (w *world) read(t *testing.T, img glance.Image) ([]byte, error) {
	t.Helper()
	r, err := w.client.Open(t.Context(), w.user, img)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestDownload(t *testing.T) {
	data := noise(300_000)
	all := func(f glancetest.Fault) glancetest.Fault { f.Times = -1; return f }
	once := func(f glancetest.Fault) glancetest.Fault { f.Times = 1; return f }
	cases := []struct {
		name      string
		fault     glancetest.Fault
		change    func(*glance.Image)
		class     error
		downloads int
	}{
		{"whole", glancetest.Fault{}, nil, nil, 1},
		{"cut once", once(glancetest.Fault{CutAt: 100_000}), nil, nil, 2},
		{"cut three times", glancetest.Fault{CutAt: 70_000, Times: 3}, nil, nil, 4},
		{"cut always", all(glancetest.Fault{CutAt: 10_000}), nil, errdefs.ErrUnavailable, 4},
		{"cut where parts are not served", glancetest.Fault{CutAt: 100_000, NoRange: true, Times: 1}, nil, nil, 2},
		{"parts are not served at all", all(glancetest.Fault{CutAt: 200_000, NoRange: true}), nil, errdefs.ErrUnavailable, 4},
		{"stalls once", once(glancetest.Fault{StallAt: 100_000}), nil, nil, 2},
		{"stalls always", all(glancetest.Fault{StallAt: 100}), nil, errdefs.ErrUnavailable, 4},
		{"busy once", once(glancetest.Fault{Status: 503}), nil, nil, 2},
		{"deactivated", all(glancetest.Fault{Status: 403}), nil, errdefs.ErrForbidden, 1},
		{"other bytes", once(glancetest.Fault{Data: append([]byte{data[0] ^ 1}, data[1:]...)}), nil, errdefs.ErrCorrupt, 1},
		{"longer", once(glancetest.Fault{Data: append(bytes.Clone(data), 0)}), nil, errdefs.ErrCorrupt, 1},
		{"shorter", all(glancetest.Fault{Data: data[:299_999]}), nil, errdefs.ErrInvalid, 2},
		{"wrong hash", glancetest.Fault{}, func(i *glance.Image) { i.HashValue = i.HashValue[1:] + "0" }, errdefs.ErrCorrupt, 1},
		{"unknown algorithm falls back", glancetest.Fault{}, func(i *glance.Image) { i.HashAlgo = "sm3" }, nil, 1},
		{"wrong checksum", glancetest.Fault{}, func(i *glance.Image) { i.HashValue = ""; i.Checksum = "00" }, errdefs.ErrCorrupt, 1},
		{"no hash", glancetest.Fault{}, func(i *glance.Image) { i.HashValue = ""; i.Checksum = "" }, nil, 1},
		{"unknown size", glancetest.Fault{}, func(i *glance.Image) { i.SizeBytes = -1 }, nil, 1},
		{"queued", glancetest.Fault{}, func(i *glance.Image) { i.Status = "queued" }, errdefs.ErrInvalid, 0},
		{"gone", glancetest.Fault{}, func(i *glance.Image) { i.ID = "gone" }, errdefs.ErrNotFound, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, glance.Options{Stall: 200 * time.Millisecond})
			id := w.Add(data, nil)
			img := w.stat(t, id)
			if c.change != nil {
				c.change(&img)
			}
			w.SetFault(id, c.fault)
			got, err := w.read(t, img)
			if c.class == nil && (err != nil || !bytes.Equal(got, data)) {
				t.Errorf("%d bytes, error %v", len(got), err)
			}
			if c.class != nil && !errors.Is(err, c.class) {
				t.Errorf("error %v", err)
			}
			if len(got) > len(data) {
				t.Errorf("%d bytes delivered of %d", len(got), len(data))
			}
			if n := w.Downloads(); n != c.downloads {
				t.Errorf("%d downloads, want %d", n, c.downloads)
			}
		})
	}
}

func TestDownloadNoData(t *testing.T) {
	w := newWorld(t, glance.Options{})
	img, err := w.client.Create(t.Context(), w.user, glance.NewImage{Name: "empty"})
	if err != nil {
		t.Fatal(err)
	}
	img.Status = "" // nobody looked
	if _, err := w.read(t, img); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func TestDownloadEmpty(t *testing.T) {
	w := newWorld(t, glance.Options{})
	got, err := w.read(t, w.stat(t, w.Add([]byte{}, nil)))
	if err != nil || len(got) != 0 {
		t.Errorf("%d %v", len(got), err)
	}
}

func TestDownloadEnds(t *testing.T) {
	w := newWorld(t, glance.Options{})
	id := w.Add(noise(100_000), nil)
	img := w.stat(t, id)
	w.SetFault(id, glancetest.Fault{Times: -1, StallAt: 10})
	t.Run("with the caller", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := w.client.Open(ctx, w.user, img)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("with Close", func(t *testing.T) {
		r, err := w.client.Open(t.Context(), w.user, img)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d %v", n, err)
		}
	})
}
