// Package console serves the consoles of instances to the proxies of the control
// plane: as a bare stream for serial consoles, and as a screen by RFB for VNC.
//
// A console has a TCP port of its own only while one may come: Serve opens it,
// and it is closed when no viewer is there and Keep has passed since the last
// Serve, or when the instance goes. Who reaches the port within that time is
// served, as with any hypervisor: a port is as open as the address that it
// listens on, and TLS with client certificates is what tells proxies from others.
//
// All viewers of an instance share one terminal of the kernel. A serial viewer
// sets its size by sending what a terminal answers to a question for it (CSI 8 ;
// rows ; columns t), a VNC viewer by SetDesktopSize; the last one counts.
//
// The package knows neither drivers nor Nova.
package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/console/rfb"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Stream is a connection to a console, as driver.ConsoleStream is one.
type Stream interface {
	io.ReadWriteCloser
	Resize(ctx context.Context, rows, cols uint16) error
}

// Kind is how a console is served.
type Kind string

// The kinds.
const (
	Serial Kind = "serial"
	VNC    Kind = "vnc"
)

// Options of a Server.
type Options struct {
	// Open connects to the console of an instance.
	Open func(ctx context.Context, instance string) (Stream, error)
	// SerialAddress and VNCAddress are the addresses that ports are opened on, ""
	// for a kind that is not served.
	SerialAddress, VNCAddress string
	// VNCHost is what proxies call VNCAddress, if not "".
	VNCHost string
	// SerialPorts and VNCPorts bound the ports to a range, both ends in it; the
	// zero value leaves the choice to the kernel.
	SerialPorts, VNCPorts [2]int
	// Security is that of VNC.
	Security rfb.Security
	// Keep is how long a port waits for viewers.
	Keep time.Duration
	// MaxConsoles bounds the ports and MaxViewers the viewers of each.
	MaxConsoles, MaxViewers int
	Log                     zerolog.Logger
}

// Server serves consoles. It is safe for concurrent use.
type Server struct {
	o    Options
	life context.Context //nolint:containedctx // of the viewers, which outlive every call
	end  context.CancelFunc
	all  sync.WaitGroup

	mu    sync.Mutex
	ports map[key]*port // guarded by mu
}

type key struct {
	instance string
	kind     Kind
}

// port is an open one.
type port struct {
	key
	s        *Server
	listener net.Listener
	number   int
	ctx      context.Context //nolint:containedctx // ends with the port
	close    context.CancelFunc
	screen   *screen // of VNC

	mu      sync.Mutex
	viewers int         // guarded by mu
	until   time.Time   // guarded by mu: kept at least so long
	timer   *time.Timer // guarded by mu
}

// New returns a server; ctx ends it, as Close does.
func New(ctx context.Context, o Options) *Server {
	s := &Server{o: o, ports: map[key]*port{}}
	s.life, s.end = context.WithCancel(ctx)
	return s
}

// Close closes all ports and waits for their viewers.
func (s *Server) Close() error {
	s.end()
	s.all.Wait()
	return nil
}

// Serve opens a port for the console of an instance, if it has none, and keeps
// it for Options.Keep from now on. errdefs.ErrUnsupported: that kind is not
// served here. errdefs.ErrExhausted: there are too many, or no port is free.
// Errors of opening the console are passed on: an instance that is not there or
// does not run has no port.
func (s *Server) Serve(ctx context.Context, instance string, kind Kind) (host string, number int, err error) {
	address := s.address(kind)
	if address == "" {
		return "", 0, fmt.Errorf("%s console of %s: %w", kind, instance, errdefs.ErrUnsupported)
	}
	probe, err := s.o.Open(ctx, instance)
	if err != nil {
		return "", 0, fmt.Errorf("%s console of %s: %w", kind, instance, err)
	}
	_ = probe.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[key{instance, kind}]
	if p == nil {
		if s.life.Err() != nil {
			return "", 0, fmt.Errorf("%s console of %s: %w", kind, instance, errdefs.ErrUnavailable)
		}
		if len(s.ports) >= s.o.MaxConsoles {
			return "", 0, fmt.Errorf("%s console of %s: %d are open: %w", kind, instance, len(s.ports), errdefs.ErrExhausted)
		}
		if p, err = s.open(ctx, address, key{instance, kind}); err != nil {
			return "", 0, fmt.Errorf("%s console of %s: %w", kind, instance, err)
		}
		s.ports[p.key] = p
	}
	p.keep(s.o.Keep)
	if kind == VNC {
		address = cmp.Or(s.o.VNCHost, address)
	}
	return address, p.number, nil
}

// Serves reports whether the console of that instance is at that port.
func (s *Server) Serves(instance string, kind Kind, number int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[key{instance, kind}]
	return p != nil && p.number == number
}

// Viewers counts those that are connected.
func (s *Server) Viewers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.ports {
		p.mu.Lock()
		n += p.viewers
		p.mu.Unlock()
	}
	return n
}

// Drop closes the ports of an instance, and its viewers.
func (s *Server) Drop(instance string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kind := range []Kind{Serial, VNC} {
		if p := s.ports[key{instance, kind}]; p != nil {
			p.close()
			delete(s.ports, p.key)
		}
	}
}

func (s *Server) address(kind Kind) string {
	if kind == VNC {
		return s.o.VNCAddress
	}
	return s.o.SerialAddress
}

// open listens. It needs mu.
func (s *Server) open(ctx context.Context, address string, k key) (*port, error) {
	ports := s.o.SerialPorts
	if k.kind == VNC {
		ports = s.o.VNCPorts
	}
	var l net.Listener
	err := fmt.Errorf("ports %d to %d of %s: %w", ports[0], ports[1], address, errdefs.ErrExhausted)
	for n := ports[0]; n <= ports[1] && l == nil; n++ {
		var why error
		if l, why = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(n))); why != nil {
			err = errors.Join(err, why)
		}
	}
	if l == nil {
		return nil, err
	}
	p := &port{key: k, s: s, listener: l}
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		p.number = tcp.Port
	}
	p.ctx, p.close = context.WithCancel(s.life)
	if k.kind == VNC {
		p.screen = newScreen(p)
	}
	context.AfterFunc(p.ctx, func() { _ = l.Close() })
	s.all.Go(p.accept)
	return p, nil
}

// keep makes the port stay for a while.
func (p *port) keep(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Now().Add(d)
	if p.timer == nil {
		p.timer = time.AfterFunc(d, p.idle)
	} else {
		p.timer.Reset(d)
	}
}

// idle closes the port unless somebody looks or was told of it lately.
func (p *port) idle() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.viewers > 0 || time.Now().Before(p.until) || p.s.ports[p.key] != p {
		return
	}
	p.close()
	delete(p.s.ports, p.key)
}

// accept serves viewers until the port is closed.
func (p *port) accept() {
	var viewers sync.WaitGroup
	defer viewers.Wait()
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if p.ctx.Err() == nil {
				p.log().Warn().Err(err).Msg("console port lost")
				p.s.forget(p)
			}
			return
		}
		if !p.enter() {
			_ = conn.Close()
			p.log().Warn().Msg("too many viewers of a console")
			continue
		}
		viewers.Go(func() {
			defer p.leave()
			err := p.serve(conn)
			p.log().Debug().Err(err).Str("viewer", conn.RemoteAddr().String()).Msg("viewer of a console has gone")
		})
	}
}

func (s *Server) forget(p *port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.close()
	if s.ports[p.key] == p {
		delete(s.ports, p.key)
	}
}

func (p *port) serve(conn net.Conn) error {
	if p.kind == VNC {
		return p.serveVNC(conn)
	}
	return p.serveSerial(conn)
}

func (p *port) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.viewers >= p.s.o.MaxViewers {
		return false
	}
	p.viewers++
	return true
}

func (p *port) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.viewers--; p.viewers == 0 {
		p.timer.Reset(max(time.Until(p.until), 0))
	}
}

func (p *port) log() *zerolog.Logger {
	l := p.s.o.Log.With().Str(logging.Instance, p.instance).Str("kind", string(p.kind)).Logger()
	return &l
}
