package rfb

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"image"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// board is a screen of few colours, or of many.
type board struct {
	mu      sync.Mutex
	size    image.Point // guarded by mu, as are all
	version uint64
	many    bool
	keys    []uint32
	pasted  string
	changed chan struct{}
}

func newBoard(w, h int) *board {
	return &board{size: image.Pt(w, h), version: 1, changed: make(chan struct{})}
}

func (b *board) touch() {
	b.version++
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *board) Size() image.Point { b.mu.Lock(); defer b.mu.Unlock(); return b.size }

func (b *board) Changes(since uint64) ([]image.Rectangle, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if since >= b.version {
		return nil, b.version
	}
	return []image.Rectangle{{Max: b.size}}, b.version
}

func (b *board) Wait(version uint64) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version > version {
		c := make(chan struct{})
		close(c)
		return c
	}
	return b.changed
}

func (b *board) Draw(part image.Rectangle, dst []uint32) {
	for i := range dst {
		dst[i] = b.at(part.Min.X+i%part.Dx(), part.Min.Y+i/part.Dx())
	}
}

func (b *board) at(x, y int) uint32 {
	if b.many {
		return uint32(x*7919+y*104729) & 0xffffff
	}
	return []uint32{0x000000, 0xaaaaaa, 0xaa0000}[(x/5+y/9)%3]
}

func (b *board) Key(sym uint32, down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if down {
		b.keys = append(b.keys, sym)
	}
}

func (b *board) Paste(text string) { b.mu.Lock(); defer b.mu.Unlock(); b.pasted += text }

func (b *board) Resize(size image.Point) error {
	if size.X > 1000 {
		return errdefs.ErrInvalid
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size = size
	b.touch()
	return nil
}

// viewer is the other end of a connection that is served.
type viewer struct {
	t    *testing.T
	conn net.Conn
	end  chan error
}

func serve(t *testing.T, s Screen, o Options) *viewer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	v := &viewer{t, ours, make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); v.end <- Serve(ctx, theirs, s, o) }()
	t.Cleanup(func() { cancel(); _ = ours.Close(); <-done })
	_ = ours.SetDeadline(time.Now().Add(2 * time.Minute))
	return v
}

func (v *viewer) take(n int) []byte {
	v.t.Helper()
	b, err := take(v.conn, n)
	if err != nil {
		v.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

func (v *viewer) want(s string) {
	v.t.Helper()
	if got := v.take(len(s)); string(got) != s {
		v.t.Fatalf("got %q, want %q", got, s)
	}
}

func (v *viewer) send(b ...byte) { _, _ = v.conn.Write(b) }

func (v *viewer) hello() (w, h int) {
	v.t.Helper()
	v.want(serverVersion)
	v.send([]byte(serverVersion)...)
	v.want("\x01\x01")
	v.send(1)
	v.want("\x00\x00\x00\x00")
	return v.init()
}

func (v *viewer) init() (w, h int) {
	v.t.Helper()
	v.send(1)
	b := v.take(24)
	v.take(int(binary.BigEndian.Uint32(b[20:])))
	return int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
}

func (v *viewer) encodings(list ...int32) {
	b := []byte{typeSetEncodings, 0, 0, byte(len(list))}
	for _, e := range list {
		b = binary.BigEndian.AppendUint32(b, uint32(e))
	}
	v.send(b...)
}

func (v *viewer) ask(incremental byte) {
	v.send(typeUpdateRequest, incremental, 0, 0, 0, 0, 255, 255, 255, 255)
}

type rect struct {
	x, y, w, h int
	encoding   int32
}

func (v *viewer) rects() int { v.t.Helper(); return int(binary.BigEndian.Uint16(v.take(4)[2:])) }

func (v *viewer) rect() rect {
	v.t.Helper()
	b := v.take(12)
	u := func(i int) int { return int(binary.BigEndian.Uint16(b[i:])) }
	return rect{u(0), u(2), u(4), u(6), int32(binary.BigEndian.Uint32(b[8:]))}
}

// inflater reads a compressed stream in parts.
type inflater struct {
	in  bytes.Buffer
	out io.Reader
}

func (i *inflater) read(t *testing.T, data []byte, n int) []byte {
	t.Helper()
	i.in.Write(data)
	if i.out == nil {
		z, err := zlib.NewReader(&i.in)
		if err != nil {
			t.Fatal(err)
		}
		i.out = z
	}
	b, err := take(i.out, n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEncodings: what a client decodes is what the screen draws, at once and
// after a change, with few colours and with many.
func TestEncodings(t *testing.T) {
	for name, encoding := range map[string]int32{"raw": encodingRaw, "tight": encodingTight, "zrle": encodingZRLE} {
		for _, many := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s := newBoard(150, 70)
				s.many = many
				v := serve(t, s, Options{Security: Security{Plain: true}})
				if w, h := v.hello(); w != 150 || h != 70 {
					t.Fatalf("%d by %d", w, h)
				}
				v.encodings(1234, encoding)
				var streams [4]inflater
				for range 2 {
					v.ask(1)
					for range v.rects() {
						r := v.rect()
						if r.encoding != encoding {
							t.Fatalf("encoding %d", r.encoding)
						}
						px := decode(t, v, &streams, r)
						for i, p := range px {
							if want := s.at(r.x+i%r.w, r.y+i/r.w); p != want {
								t.Fatalf("pixel %d of %+v is %06x, want %06x", i, r, p, want)
							}
						}
					}
					s.mu.Lock()
					s.touch()
					s.mu.Unlock()
				}
			})
		}
	}
}

func decode(t *testing.T, v *viewer, streams *[4]inflater, r rect) []uint32 {
	t.Helper()
	n := r.w * r.h
	three := func(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }
	out := make([]uint32, 0, n)
	switch r.encoding {
	case encodingRaw:
		for p := range slices.Chunk(v.take(4*n), 4) {
			out = append(out, binary.LittleEndian.Uint32(p))
		}
	case encodingZRLE:
		size := int(binary.BigEndian.Uint32(v.take(4)))
		in := &streams[3]
		data := v.take(size)
		next := func(n int) []byte { b := in.read(t, data, n); data = nil; return b }
		out = make([]uint32, n)
		for y := 0; y < r.h; y += 64 {
			for x := 0; x < r.w; x += 64 {
				tw, th := min(64, r.w-x), min(64, r.h-y)
				kind := int(next(1)[0])
				var palette []uint32
				for range kind {
					b := next(3) // little endian: blue first
					palette = append(palette, three([]byte{b[2], b[1], b[0]}))
				}
				for row := range th {
					var bits []byte
					per := map[int]int{2: 1, 3: 2, 4: 2}[kind]
					if kind > 4 {
						per = 4
					}
					if kind > 1 {
						bits = next((tw*per + 7) / 8)
					}
					for col := range tw {
						at := (y+row)*r.w + x + col
						switch kind {
						case 0:
							b := next(3)
							out[at] = three([]byte{b[2], b[1], b[0]})
						case 1:
							out[at] = palette[0]
						default:
							shift := 8 - per - col*per%8
							out[at] = palette[bits[col*per/8]>>shift&(1<<per-1)]
						}
					}
				}
			}
		}
	case encodingTight:
		control := v.take(1)[0]
		compact := func(id, n int) []byte {
			if n < 12 {
				return v.take(n)
			}
			size, shift := 0, 0
			for {
				b := v.take(1)[0]
				size |= int(b&0x7f) << shift
				if shift += 7; b < 0x80 || shift > 14 {
					break
				}
			}
			return streams[id].read(t, v.take(size), n)
		}
		switch {
		case control == 0x80:
			c := three(v.take(3))
			for range n {
				out = append(out, c)
			}
		case control&0x40 == 0:
			for p := range slices.Chunk(compact(int(control>>4&3), 3*n), 3) {
				out = append(out, three(p))
			}
		default:
			v.want("\x01")
			var palette []uint32
			for range int(v.take(1)[0]) + 1 {
				palette = append(palette, three(v.take(3)))
			}
			if len(palette) == 2 {
				rows := compact(int(control>>4&3), (r.w+7)/8*r.h)
				for i := range n {
					x, y := i%r.w, i/r.w
					out = append(out, palette[rows[y*((r.w+7)/8)+x/8]>>(7-x%8)&1])
				}
				break
			}
			for _, i := range compact(int(control>>4&3), n) {
				out = append(out, palette[i])
			}
		}
	}
	return out
}

func TestSizes(t *testing.T) {
	s := newBoard(100, 50)
	v := serve(t, s, Options{Security: Security{Plain: true}})
	v.hello()
	v.encodings(encodingZRLE, encodingExtendedSize)
	read := func() (tell rect) {
		for range v.rects() {
			r := v.rect()
			if r.encoding == encodingExtendedSize {
				tell = r
				v.take(20)
			} else {
				v.take(int(binary.BigEndian.Uint32(v.take(4))))
			}
		}
		return tell
	}
	v.ask(0)
	if got := read(); got.w != 100 || got.h != 50 || got.x != 0 {
		t.Errorf("first %+v", got)
	}
	for _, tc := range []struct{ w, status int }{{200, 0}, {5000, 3}} {
		m := binary.BigEndian.AppendUint16([]byte{typeSetDesktopSize, 0}, uint16(tc.w))
		m = append(binary.BigEndian.AppendUint16(m, 60), 1, 0)
		v.send(append(m, make([]byte, 16)...)...)
		got := rect{}
		for v.ask(1); got.w == 0 || got.x == 0; v.ask(1) {
			got = read()
		}
		if got.w != 200 || got.h != 60 || got.x != 1 || got.y != tc.status {
			t.Errorf("asked for %d: %+v", tc.w, got)
		}
	}
}

func TestInput(t *testing.T) {
	s := newBoard(10, 10)
	v := serve(t, s, Options{Security: Security{Plain: true}})
	v.hello()
	v.send(typeKey, 1, 0, 0, 0, 0, 0xff, 0x0d)
	v.send(typePointer, 1, 0, 3, 0, 4)
	v.send(typeCutText, 0, 0, 0, 0, 0, 0, 3, 'a', 0xfc, 'b')
	v.send(typeKey, 0, 0, 0, 0, 0, 0xff, 0x0d)
	_ = v.conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // of TCP
	if err := <-v.end; err != nil {
		t.Errorf("a client that leaves: %v", err)
	}
	if !slices.Equal(s.keys, []uint32{0xff0d}) || s.pasted != "aüb" {
		t.Errorf("keys %x, text %q", s.keys, s.pasted)
	}
}

func TestBadClients(t *testing.T) {
	for name, tc := range map[string]struct {
		say  []byte
		want error
	}{
		"unknown message": {[]byte{77}, errdefs.ErrUnsupported},
		"long text":       {[]byte{typeCutText, 0, 0, 0, 0xff, 0, 0, 0}, errdefs.ErrExhausted},
		"colour map":      {append([]byte{0, 0, 0, 0, 8, 8, 0, 0}, make([]byte, 12)...), errdefs.ErrUnsupported},
		"odd pixels":      {append([]byte{0, 0, 0, 0, 7, 8, 0, 1}, make([]byte, 12)...), errdefs.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			v := serve(t, newBoard(10, 10), Options{Security: Security{Plain: true}})
			v.hello()
			v.send(tc.say...)
			if err := <-v.end; !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
	t.Run("no version", func(t *testing.T) {
		v := serve(t, newBoard(10, 10), Options{Security: Security{Plain: true}})
		v.send([]byte("GET / HTTP/1.1\r\n")...)
		if err := <-v.end; !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%v", err)
		}
	})
	t.Run("silent", func(t *testing.T) {
		v := serve(t, newBoard(10, 10), Options{Security: Security{Plain: true}, Patience: time.Millisecond})
		if err := <-v.end; err == nil {
			t.Error("one that says nothing stays")
		}
	})
	t.Run("nothing enabled", func(t *testing.T) {
		v := serve(t, newBoard(10, 10), Options{})
		v.want(serverVersion)
		v.send([]byte(serverVersion)...)
		if err := <-v.end; !errors.Is(err, errdefs.ErrForbidden) {
			t.Errorf("%v", err)
		}
	})
}

func TestOldVersions(t *testing.T) {
	v := serve(t, newBoard(10, 10), Options{Security: Security{Plain: true}})
	v.want(serverVersion)
	v.send([]byte("RFB 003.003\n")...)
	v.want("\x00\x00\x00\x01")
	v.init()
	v = serve(t, newBoard(10, 10), Options{Security: Security{Plain: true}})
	v.want(serverVersion)
	v.send([]byte("RFB 003.007\n")...)
	v.want("\x01\x01")
	v.send(1)
	v.init()
}

// TestVeNCrypt: X509None, with and without the certificate that is asked for.
func TestVeNCrypt(t *testing.T) {
	pair, pool := certificate(t)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	for _, known := range []bool{true, false} {
		v := serve(t, newBoard(10, 10), Options{Security: Security{TLS: config}})
		v.want(serverVersion)
		v.send([]byte(serverVersion)...)
		v.want("\x01\x13")
		v.send(securityVeNCrypt)
		v.want("\x00\x02")
		v.send(0, 2)
		v.want("\x00")
		v.want("\x01\x00\x00\x01\x04")
		v.send(0, 0, 1, 4)
		v.want("\x01")
		client := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
		if known {
			client.Certificates = []tls.Certificate{pair}
		}
		v.conn = tls.Client(v.conn, client)
		if !known {
			_, err := take(v.conn, 4)
			if serr := <-v.end; err == nil || serr == nil {
				t.Errorf("a client without a certificate: %v, %v", err, serr)
			}
			continue
		}
		v.want("\x00\x00\x00\x00")
		if w, _ := v.init(); w != 10 {
			t.Errorf("width %d", w)
		}
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// FuzzMessages: no message makes the server keep more than its bounds, and what
// formats are accepted can be encoded.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{typeSetEncodings, 0, 0, 1, 0, 0, 0, 7, typeUpdateRequest, 1, 0, 0, 0, 0, 0, 1, 0, 1})
	f.Add(append([]byte{typeSetPixelFormat, 0, 0, 0}, usualFormat().encode()...))
	f.Add([]byte{typeKey, 1, 0, 0, 0, 0, 0, 'a', typeCutText, 0, 0, 0, 0, 0, 0, 1, 'x', typeSetDesktopSize, 0, 1, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, said []byte) {
		s := newBoard(70, 20)
		e := encoder{format: usualFormat()}
		r := bytes.NewReader(said)
		for {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			switch m := m.(type) {
			case pixelFormat:
				e.format = m
				for _, encoding := range []int32{encodingRaw, encodingTight, encodingZRLE} {
					e.encoding = encoding
					e.rectangle(nil, s, image.Rectangle{Max: s.size})
				}
			case setEncodings:
				if len(m) > maxEncodings {
					t.Errorf("%d encodings", len(m))
				}
			case cutText:
				if len(m) > 2*maxPaste {
					t.Errorf("%d bytes of text", len(m))
				}
			}
		}
	})
}
