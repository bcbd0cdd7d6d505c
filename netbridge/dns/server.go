// Package dns is the name server of one network (RFC 1034, 1035): it knows the
// names of the network's hosts, and asks the resolvers of the host machine for
// everything else.
//
// It answers nobody outside the network, nobody faster than a bound, and never
// more than was asked for: one question, of class IN, by a query that wants
// recursion. Names of the network's domain, names of one label and addresses of
// the network are never asked for outside. It keeps no cache.
//
// netbridge/fabric listens; only it may import this package.
package dns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
)

// Name is a host of the network.
type Name struct {
	// Host is its name without the domain, in any case; "" has none but those
	// that follow from its addresses ("host-10-0-0-5", "ip-10-0-0-5").
	Host      string
	Addresses []netip.Addr
}

// Options of a Server.
type Options struct {
	// Domain of the network, without dots at its ends.
	Domain string
	// Names are the hosts there are. It is called for each question, from many
	// goroutines.
	Names func() []Name
	// Inside reports whether an address is of the network; others get no
	// answer.
	Inside func(netip.Addr) bool
	// Resolvers is the path of a resolv.conf(5) whose name servers are asked,
	// from the namespace of the caller's process; read again when it changes.
	Resolvers string
}

// Server answers questions. Safe for concurrent use.
type Server struct {
	o      Options
	limit  limit
	others resolvers
}

// Bounds on what guests may ask for.
const (
	timeout        = 5 * time.Second
	mostConnected  = 64  // TCP connections of a network
	mostPerStream  = 64  // questions of one
	mostAtOnce     = 256 // questions of a network
	mostPerSecond  = 200 // questions of one address
	mostAtATime    = 400 // as many at once after a pause
	largestPayload = 1232
	localTTL       = 5 // seconds; instances come and go
)

// New returns a Server that does not listen yet.
func New(o Options) *Server {
	return &Server{o: o, limit: newLimit(), others: resolvers{path: o.Resolvers}}
}

// Serve answers what comes in on both until stop is called, which ctx does not
// do: it is what answers are made with. stop closes them, waits for what is being answered, and is called once. pc should be a
// *net.UDPConn: answers then come from the address that was asked.
func (s *Server) Serve(ctx context.Context, pc net.PacketConn, l net.Listener) (stop func() error) {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serve(ctx, w, q) })
	servers := []*dns.Server{
		{PacketConn: pc, Handler: handler, UDPSize: largestPayload, MsgAcceptFunc: accept},
		{
			Listener: netutil.LimitListener(l, mostConnected), Handler: handler, MsgAcceptFunc: accept, ReadTimeout: timeout, WriteTimeout: timeout,
			IdleTimeout: func() time.Duration { return timeout }, MaxTCPQueries: mostPerStream,
		},
	}
	done := make(chan error, len(servers))
	for _, server := range servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { done <- server.ActivateAndServe() }()
		<-started
	}
	return func() error {
		var first error
		for _, server := range servers {
			if err := server.Shutdown(); first == nil {
				first = err
			}
		}
		for range servers {
			if err := <-done; first == nil {
				first = err
			}
		}
		return first
	}
}

// accept drops what is no question without a word, and what is not understood
// with one.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response, opcode = 1 << 15, 0xf << 11
	switch {
	case h.Bits&response != 0:
		return dns.MsgIgnore
	case h.Bits&opcode != 0:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount != 0 || h.Nscount != 0 || h.Arcount > 2:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) {
	from, err := netip.ParseAddrPort(w.RemoteAddr().String())
	address := from.Addr().Unmap().WithZone("")
	if err != nil || !s.o.Inside(address) || !s.limit.enter(address, time.Now()) {
		return
	}
	defer s.limit.leave()
	_, stream := w.RemoteAddr().(*net.TCPAddr)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_ = w.WriteMsg(s.Answer(ctx, q, stream)) // who asked asks again
}

// Answer is the answer to a question, which has been looked at by the library
// only. It fits: into a datagram of the size that q allows, unless stream.
func (s *Server) Answer(ctx context.Context, q *dns.Msg, stream bool) *dns.Msg {
	a := s.answer(ctx, q, stream)
	size := dns.MaxMsgSize
	if opt := q.IsEdns0(); opt != nil {
		a.SetEdns0(largestPayload, opt.Do())
		if !stream {
			size = int(min(max(opt.UDPSize(), dns.MinMsgSize), largestPayload))
		}
	} else if !stream {
		size = dns.MinMsgSize
	}
	a.Truncate(size)
	return a
}

func (s *Server) answer(ctx context.Context, q *dns.Msg, stream bool) *dns.Msg {
	a := new(dns.Msg)
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery {
		return a.SetRcode(q, dns.RcodeFormatError)
	}
	a.SetReply(q)
	a.RecursionAvailable = true
	question := q.Question[0]
	switch question.Qtype {
	case dns.TypeANY, dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB:
		a.Rcode = dns.RcodeRefused // much for little
		return a
	}
	switch {
	case question.Qclass != dns.ClassINET:
		a.Rcode = dns.RcodeRefused
	case s.local(a, question):
	case !q.RecursionDesired:
		a.Rcode = dns.RcodeRefused
	default:
		s.others.ask(ctx, a, q, stream)
	}
	return a
}

// relative is a name in lower case without the domain; ok: it is the network's.
func (s *Server) relative(name string) (host string, ok bool) {
	host = strings.TrimSuffix(strings.ToLower(name), ".")
	if host == strings.ToLower(s.o.Domain) {
		return "", true
	}
	if rest, ok := strings.CutSuffix(host, "."+strings.ToLower(s.o.Domain)); ok {
		return rest, true
	}
	return host, !strings.Contains(host, ".")
}
