package glance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/glance"
	"github.com/gantry-project/gantry/glance/glancetest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

func (w *world) queued(t *testing.T) string {
	t.Helper()
	img, err := w.client.Create(t.Context(), w.user, glance.NewImage{Name: "snap", DiskFormat: "raw", ContainerFormat: "docker"})
	if err != nil {
		t.Fatal(err)
	}
	return img.ID
}

func TestUpload(t *testing.T) {
	data := noise(200_000)
	w := newWorld(t, glance.Options{})
	id := w.queued(t)
	if err := w.client.Upload(t.Context(), w.user, id, iotest.OneByteReader(bytes.NewReader(data[:1000]))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.Data(id), data[:1000]) || !w.stat(t, id).Active() {
		t.Error("not stored")
	}
	id = w.queued(t)
	if err := w.client.Upload(t.Context(), w.user, id, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if got, err := w.read(t, w.stat(t, id)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d %v", len(got), err)
	}
	if err := w.client.Upload(t.Context(), w.user, id, bytes.NewReader(data)); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("second upload: %v", err)
	}
}

func TestUploadFails(t *testing.T) {
	data := noise(5_000_000)
	broken := errors.New("the layer is broken")
	hold := make(chan struct{})
	cases := []struct {
		name    string
		prepare func(t *testing.T, w *world) string
		content io.Reader
		want    error
	}{
		{"deleted before", func(*testing.T, *world) string { return "gone" }, nil, errdefs.ErrNotFound},
		{"deleted meanwhile", func(t *testing.T, w *world) string {
			id := w.queued(t)
			w.SetFault(id, glancetest.Fault{Times: 1, CutAt: 1000})
			return id
		}, nil, errdefs.ErrNotFound},
		{"formats not set", func(t *testing.T, w *world) string {
			img, err := w.client.Create(t.Context(), w.user, glance.NewImage{Name: "x"})
			if err != nil {
				t.Fatal(err)
			}
			return img.ID
		}, bytes.NewReader(data[:10]), errdefs.ErrInvalid},
		{"quota", func(t *testing.T, w *world) string {
			id := w.queued(t)
			w.SetFault(id, glancetest.Fault{Times: 1, Status: 413})
			return id
		}, bytes.NewReader(data[:10]), errdefs.ErrExhausted},
		{"cut", func(t *testing.T, w *world) string {
			id := w.queued(t)
			w.SetFault(id, glancetest.Fault{Times: 1, CutAt: 1000})
			return id
		}, nil, errdefs.ErrUnavailable},
		{"stalled", func(t *testing.T, w *world) string {
			id := w.queued(t)
			w.SetFault(id, glancetest.Fault{Times: 1, StallAt: 1000, Hold: hold})
			return id
		}, nil, errdefs.ErrUnavailable},
		{
			"content breaks", func(t *testing.T, w *world) string { return w.queued(t) },
			io.MultiReader(bytes.NewReader(data[:100_000]), iotest.ErrReader(broken)), broken,
		},
		{"other bytes stored", func(t *testing.T, w *world) string {
			id := w.queued(t)
			w.SetFault(id, glancetest.Fault{Times: 1, Data: []byte("x")})
			return id
		}, nil, errdefs.ErrCorrupt},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, glance.Options{Stall: 200 * time.Millisecond})
			id := c.prepare(t, w)
			content := c.content
			if content == nil {
				content = bytes.NewReader(data)
			}
			if c.name == "deleted meanwhile" {
				content = &removing{r: content, remove: func() { w.Remove(id) }}
			}
			if c.name == "stalled" {
				defer close(hold)
			}
			err := w.client.Upload(t.Context(), w.user, id, content)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v", err)
			}
			if c.want != errdefs.ErrCorrupt && len(w.Data(id)) != 0 {
				t.Error("an image with data is left")
			}
		})
	}
}

// removing deletes the image once the upload has begun.
type removing struct {
	r      io.Reader
	n      int
	remove func()
}

func (r *removing) Read(p []byte) (int, error) {
	if r.n++; r.n == 2 {
		r.remove()
	}
	return r.r.Read(p)
}

// A source that takes its time does not count as a stalled transfer.
func TestUploadSlowSource(t *testing.T) {
	w := newWorld(t, glance.Options{Stall: 50 * time.Millisecond})
	id := w.queued(t)
	pr, pw := io.Pipe()
	go func() {
		for range 3 {
			<-time.After(120 * time.Millisecond)
			_, _ = pw.Write([]byte("slow"))
		}
		_ = pw.Close()
	}()
	if err := w.client.Upload(t.Context(), w.user, id, pr); err != nil {
		t.Error(err)
	}
}

func TestUploadCancelled(t *testing.T) {
	w := newWorld(t, glance.Options{})
	id := w.queued(t)
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	go func() {
		_, _ = pw.Write([]byte("some"))
		cancel()
	}()
	err := w.client.Upload(ctx, w.user, id, pr)
	_ = pr.Close()
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// lying is a service that says that an image has another hash.
type lying struct{ glance.REST }

func (l lying) Do(ctx context.Context, auth openstack.UserAuth, req openstack.Request) error {
	err := l.REST.Do(ctx, auth, req)
	if raw, ok := req.Into.(*json.RawMessage); ok && err == nil && req.Method == http.MethodGet {
		*raw = bytes.ReplaceAll(*raw, []byte(`"os_hash_value":"`), []byte(`"os_hash_value":"00`))
	}
	return err
}

func TestUploadIsVerified(t *testing.T) {
	w := newWorld(t, glance.Options{})
	id := w.queued(t)
	client := glance.New(lying{w.rest}, glance.Options{}, zerolog.Nop())
	if err := client.Upload(t.Context(), w.user, id, bytes.NewReader([]byte("data"))); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("an image with another hash: %v", err)
	}
}

// The rate is kept, and the log says how far it is.
func TestUploadAtARate(t *testing.T) {
	w := newWorld(t, glance.Options{})
	var log bytes.Buffer
	synced := zerolog.New(zerolog.SyncWriter(&log))
	client := glance.New(w.rest, glance.Options{UploadRate: 1 << 20, Progress: 10 * time.Millisecond}, synced)
	data := noise(300 << 10)
	id, began := w.queued(t), time.Now()
	if err := client.Upload(t.Context(), w.user, id, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if took, least := time.Since(began), 250*time.Millisecond; took < least {
		t.Errorf("300 KiB at 1 MiB a second took %s", took)
	}
	if !bytes.Equal(w.Data(id), data) || !strings.Contains(log.String(), "upload goes on") {
		t.Errorf("log: %s", log.String())
	}
}
