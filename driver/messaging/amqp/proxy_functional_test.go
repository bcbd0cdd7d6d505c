//go:build functional

package amqp_test

import (
	"net"
	"sync"
	"testing"
)

// proxy is a TCP proxy that a test can cut or freeze.
type proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu     sync.Mutex
	pairs  map[*pair]bool
	refuse bool
}

// pair is one proxied connection.
type pair struct {
	in, out net.Conn
	frozen  chan struct{} // guarded by proxy.mu; not nil: nothing passes until it is closed
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, pairs: map[*pair]bool{}}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.running.Wait()
	})
	return p
}

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		c := &pair{in: in, out: out}
		p.mu.Lock()
		refuse := p.refuse
		p.pairs[c] = true
		p.mu.Unlock()
		if refuse {
			p.drop(c)
			continue
		}
		p.running.Go(func() { p.copy(c, in, out) })
		p.running.Go(func() { p.copy(c, out, in) })
	}
}

func (p *proxy) copy(c *pair, dst, src net.Conn) {
	defer p.drop(c)
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		p.mu.Lock()
		frozen := c.frozen
		p.mu.Unlock()
		if frozen != nil {
			<-frozen
		}
		if _, werr := dst.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// drop ends one connection.
func (p *proxy) drop(c *pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(c)
}

func (p *proxy) end(c *pair) {
	if !p.pairs[c] {
		return
	}
	delete(p.pairs, c)
	_ = c.in.Close()
	_ = c.out.Close()
	if c.frozen != nil {
		close(c.frozen)
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		p.end(c)
	}
}

// down cuts everything and refuses new connections until up.
func (p *proxy) down() {
	p.mu.Lock()
	p.refuse = true
	p.mu.Unlock()
	p.cut()
}

func (p *proxy) up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = false
}

// freeze makes the connections of now half-open: they stay, and nothing passes.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		if c.frozen == nil {
			c.frozen = make(chan struct{})
		}
	}
}
