package courier_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/local/courier"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const instance = "c0ffee00-0000-4000-8000-000000000001"

// host is one that has an instance.
type host struct {
	address string
	offer   atomic.Pointer[courier.Offer]
	asked   atomic.Int64
	// cut, if not 0, is after how many bytes each connection breaks.
	cut atomic.Int64
}

func (h *host) find(_ context.Context, name string) (courier.Offer, error) {
	if o := h.offer.Load(); o != nil && name == instance {
		return *o, nil
	}
	return courier.Offer{}, fmt.Errorf("offer of %s: %w", name, errdefs.ErrNotFound)
}

// serve starts a life of the host's service and returns its end.
func (h *host) serve(t *testing.T) (end func()) {
	t.Helper()
	address := h.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	h.address = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- courier.NewServer(h.find, zerolog.Nop()).Serve(ctx, &breaking{Listener: l, host: h}) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// breaking is a network that loses connections.
type breaking struct {
	net.Listener
	host *host
}

func (b *breaking) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	return &breakingConn{Conn: c, host: b.host}, err
}

type breakingConn struct {
	net.Conn
	host *host
	n    int64
}

func (c *breakingConn) Write(p []byte) (int, error) {
	if cut := c.host.cut.Load(); cut > 0 && c.n+int64(len(p)) > cut {
		_ = c.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Write(p)
	c.n += int64(n)
	return n, err
}

// noise does not get smaller, text does.
func noise(n int) []byte {
	out := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

// move is a host with streams, and who may have them.
func move(t *testing.T, streams map[string][]byte) (*host, courier.Source) {
	t.Helper()
	own, theirs := key(t), key(t)
	h := &host{}
	h.offer.Store(&courier.Offer{Own: own, Peer: theirs.Public(), Open: func(_ context.Context, what string) (io.ReadCloser, error) {
		h.asked.Add(1)
		data, ok := streams[what]
		if !ok {
			return nil, fmt.Errorf("stream %s: %w", what, errdefs.ErrNotFound)
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}})
	t.Cleanup(h.serve(t))
	return h, courier.Source{Address: h.address, Name: instance, Own: theirs, Peer: own.Public(), Patience: time.Minute, Log: zerolog.Nop()}
}

func key(t *testing.T) courier.Key {
	t.Helper()
	k, err := courier.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func fetch(t *testing.T, s courier.Source, what string) ([]byte, error) {
	t.Helper()
	r, err := s.Open(t.Context(), what)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestStreamsCome(t *testing.T) {
	want := map[string][]byte{"disk": noise(3 << 20), "text": bytes.Repeat([]byte("all the same "), 1<<20), "none": {}, "one": {7}}
	_, s := move(t, want)
	for what, data := range want {
		if got, err := fetch(t, s, what); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes of %d, %v", what, len(got), len(data), err)
		}
	}
	if _, err := fetch(t, s, "other"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
}

func TestALostConnectionIsMadeAgain(t *testing.T) {
	data := noise(3 << 20)
	h, s := move(t, map[string][]byte{"disk": data})
	h.cut.Store(1 << 20)
	got, err := fetch(t, s, "disk")
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(data), err)
	}
	if n := h.asked.Load(); n < 3 {
		t.Errorf("%d requests", n)
	}
}

func TestTheOtherServiceMayRestart(t *testing.T) {
	data := noise(4 << 20)
	own, theirs := key(t), key(t)
	h := &host{}
	hold := make(chan struct{})
	var first atomic.Bool
	h.offer.Store(&courier.Offer{Own: own, Peer: theirs.Public(), Open: func(ctx context.Context, _ string) (io.ReadCloser, error) {
		if !first.CompareAndSwap(false, true) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:3<<20]), readerFunc(func([]byte) (int, error) {
			close(hold)
			<-ctx.Done()
			return 0, ctx.Err()
		}))), nil
	}})
	end := h.serve(t)
	go func() {
		<-hold
		end()
		end = h.serve(t)
	}()
	s := courier.Source{Address: h.address, Name: instance, Own: theirs, Peer: own.Public(), Patience: time.Minute, Log: zerolog.Nop()}
	got, err := fetch(t, s, "disk")
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(data), err)
	}
	end()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Whoever has another key than the one of this move gets nothing and gives
// nothing.
func TestStrangers(t *testing.T) {
	h, s := move(t, map[string][]byte{"disk": noise(100)})
	stranger := s
	stranger.Own = key(t)
	if _, err := fetch(t, stranger, "disk"); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("a stranger fetches: %v", err)
	}
	wrong := s
	wrong.Peer = key(t).Public()
	if _, err := fetch(t, wrong, "disk"); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("from a stranger: %v", err)
	}
	wrong.Peer = courier.PublicKey{}
	if _, err := fetch(t, wrong, "disk"); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("from whoever: %v", err)
	}
	if n := h.asked.Load(); n != 0 {
		t.Errorf("%d streams were opened", n)
	}
	h.offer.Store(nil)
	if _, err := fetch(t, s, "disk"); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("what is offered no more: %v", err)
	}
}

// Half of one stream and half of another are no disk.
func TestAStreamThatChanges(t *testing.T) {
	own, theirs := key(t), key(t)
	h := &host{}
	var n atomic.Int64
	h.offer.Store(&courier.Offer{Own: own, Peer: theirs.Public(), Open: func(context.Context, string) (io.ReadCloser, error) {
		data := noise(2 << 20)
		data[0] = byte(n.Add(1))
		return io.NopCloser(bytes.NewReader(data)), nil
	}})
	h.cut.Store(1<<20 + 500<<10)
	t.Cleanup(h.serve(t))
	s := courier.Source{Address: h.address, Name: instance, Own: theirs, Peer: own.Public(), Patience: time.Minute, Log: zerolog.Nop()}
	if _, err := fetch(t, s, "disk"); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("after %d streams: %v", n.Load(), err)
	}
}

func TestPatienceEnds(t *testing.T) {
	h := &host{}
	h.serve(t)()
	s := courier.Source{Address: h.address, Name: instance, Own: key(t), Peer: key(t).Public(), Log: zerolog.Nop()}
	if _, err := fetch(t, s, "disk"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("nobody there: %v", err)
	}
	s.Patience = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Open(ctx, "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzKey(f *testing.F) {
	k, err := courier.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.Public().String())
	f.Add("ed25519:")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := courier.ParsePublicKey(text)
		if err == nil && p.String() != text {
			t.Errorf("%q is read as %q", text, p)
		}
		if err != nil && !errors.Is(err, errdefs.ErrInvalid) {
			t.Error(err)
		}
	})
}
