package dns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	wire "github.com/miekg/dns"

	"github.com/gantry-project/gantry/netbridge/dns"
)

// outside is a resolver of the host: it has an address for "www.example.", a long
// text for "long.example.", nothing else, and counts.
type outside struct {
	path  string // of a resolv.conf that names it
	asked atomic.Int32
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{path: filepath.Join(t.TempDir(), "resolv.conf")}
	pc, err := net.ListenPacket("udp4", "127.99.88.53:53") //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.99.88.53:53") //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	h := wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) {
		o.asked.Add(1)
		a := new(wire.Msg).SetReply(q)
		_, stream := w.RemoteAddr().(*net.TCPAddr)
		switch q.Question[0].Name {
		case "www.example.":
			r, _ := wire.NewRR("www.example. 60 IN A 192.0.2.80")
			a.Answer = []wire.RR{r}
		case "long.example.":
			for i := range 40 {
				r, _ := wire.NewRR(fmt.Sprintf("long.example. 60 IN TXT %q", strings.Repeat("x", 60)+fmt.Sprint(i)))
				a.Answer = append(a.Answer, r)
			}
			if !stream {
				a.Truncate(1232)
			}
		default:
			a.Rcode = wire.RcodeNameError
		}
		_ = w.WriteMsg(a)
	})
	for _, s := range []*wire.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	if err := os.WriteFile(o.path, []byte("nameserver 127.99.88.53\nsearch example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

func inside(a netip.Addr) bool {
	return netip.MustParsePrefix("10.0.0.0/24").Contains(a) || netip.MustParsePrefix("fd00::/64").Contains(a) || a.IsLoopback()
}

func names() []dns.Name {
	return []dns.Name{
		{Host: "Web", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}},
		{Host: "web", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.6")}},
		{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
	}
}

func newServer(o *outside) *dns.Server {
	return dns.New(dns.Options{Domain: "openstacklocal", Names: names, Inside: inside, Resolvers: o.path})
}

// told is an answer in short.
func told(a *wire.Msg) string {
	if a.Rcode != wire.RcodeSuccess {
		return wire.RcodeToString[a.Rcode]
	}
	var out []string
	for _, r := range a.Answer {
		out = append(out, strings.Fields(strings.TrimPrefix(r.String(), r.Header().String()))[0])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestAnswers(t *testing.T) {
	o := newOutside(t)
	s := newServer(o)
	for _, c := range []struct {
		name    string
		kind    uint16
		want    string
		outside bool
	}{
		{"web.", wire.TypeA, "10.0.0.5 10.0.0.6", false},
		{"WEB.OpenStackLocal.", wire.TypeA, "10.0.0.5 10.0.0.6", false},
		{"web.openstacklocal.", wire.TypeAAAA, "fd00::5", false},
		{"web.openstacklocal.", wire.TypeMX, "", false},
		{"host-10-0-0-5.", wire.TypeA, "10.0.0.5", false},
		{"ip-10-0-0-1.openstacklocal.", wire.TypeA, "10.0.0.1", false},
		{"ip-10-0-0-1.openstacklocal.", wire.TypeAAAA, "", false},
		{"host-fd00--5.", wire.TypeAAAA, "fd00::5", false},
		{"openstacklocal.", wire.TypeA, "", false},
		{"other.openstacklocal.", wire.TypeA, "NXDOMAIN", false},
		{"other.", wire.TypeA, "NXDOMAIN", false},
		{"ip-10-0-0-9.", wire.TypeA, "NXDOMAIN", false},
		{"5.0.0.10.in-addr.arpa.", wire.TypePTR, "Web.openstacklocal.", false},
		{"1.0.0.10.in-addr.arpa.", wire.TypePTR, "host-10-0-0-1.openstacklocal.", false},
		{"5.0.0.10.in-addr.arpa.", wire.TypeA, "", false},
		{"9.0.0.10.in-addr.arpa.", wire.TypePTR, "NXDOMAIN", false},
		{"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", wire.TypePTR, "Web.openstacklocal.", false},
		{"web.openstacklocal.", wire.TypeANY, "REFUSED", false},
		{"www.example.", wire.TypeAXFR, "REFUSED", false},
		{"www.example.", wire.TypeA, "192.0.2.80", true},
		{"8.8.8.8.in-addr.arpa.", wire.TypePTR, "NXDOMAIN", true},
		{"nothing.example.", wire.TypeA, "NXDOMAIN", true},
	} {
		t.Run(fmt.Sprint(c.name, wire.TypeToString[c.kind]), func(t *testing.T) {
			before := o.asked.Load()
			q := new(wire.Msg).SetQuestion(c.name, c.kind)
			a := s.Answer(t.Context(), q, false)
			if got := told(a); got != c.want || a.Id != q.Id || !a.Response {
				t.Errorf("got %q, want %q: %v", got, c.want, a)
			}
			if got := o.asked.Load() > before; got != c.outside {
				t.Errorf("asked outside: %v", got)
			}
			if !c.outside && a.Rcode != wire.RcodeRefused && !a.Authoritative {
				t.Error("no authority")
			}
		})
	}
	q := new(wire.Msg).SetQuestion("www.example.", wire.TypeA)
	q.RecursionDesired = false
	if got := told(s.Answer(t.Context(), q, false)); got != "REFUSED" {
		t.Errorf("without recursion: %s", got)
	}
	q = new(wire.Msg).SetQuestion("www.example.", wire.TypeA)
	q.Question[0].Qclass = wire.ClassCHAOS
	if got := told(s.Answer(t.Context(), q, false)); got != "REFUSED" {
		t.Errorf("of another class: %s", got)
	}
}

func TestResolversOfTheHost(t *testing.T) {
	o := newOutside(t)
	s := newServer(o)
	q := new(wire.Msg).SetQuestion("www.example.", wire.TypeA)
	for _, c := range []struct{ text, want string }{
		{"nameserver 127.99.88.53\n", "192.0.2.80"},
		{"nameserver 127.0.0.1\nnameserver 127.99.88.53\n", "192.0.2.80"}, // nobody answers at the first
		{"nameserver 127.0.0.254\n", "SERVFAIL"},
		{"# none of it\n", "SERVFAIL"},
	} {
		if err := os.WriteFile(o.path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := told(s.Answer(t.Context(), q, false)); got != c.want {
			t.Errorf("%q: %s, want %s", c.text, got, c.want)
		}
	}
	if err := os.Remove(o.path); err != nil {
		t.Fatal(err)
	}
	if got := told(s.Answer(t.Context(), q, false)); got != "SERVFAIL" {
		t.Errorf("without a file: %s", got)
	}
}

// serve listens on the loopback.
func serve(t *testing.T, s *dns.Server) string {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0") //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", pc.LocalAddr().String()) //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	stop := s.Serve(context.WithoutCancel(t.Context()), pc, l)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return pc.LocalAddr().String()
}

func TestSizes(t *testing.T) {
	at := serve(t, newServer(newOutside(t)))
	for _, c := range []struct {
		net       string
		edns      uint16
		atMost    int
		truncated bool
	}{{"udp", 0, 512, true}, {"udp", 1232, 1232, true}, {"udp", 65535, 1232, true}, {"tcp", 0, 65535, false}} {
		q := new(wire.Msg).SetQuestion("long.example.", wire.TypeTXT)
		if c.edns > 0 {
			q.SetEdns0(c.edns, false)
		}
		a, _, err := (&wire.Client{Net: c.net, UDPSize: 65535}).ExchangeContext(t.Context(), q, at)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		a.Compress = true // as it came
		if a.Len() > c.atMost || a.Truncated != c.truncated || !c.truncated && len(a.Answer) != 40 {
			t.Errorf("%+v: %d bytes, truncated %v, %d records", c, a.Len(), a.Truncated, len(a.Answer))
		}
	}
}

// TestOneGuestCannotHaveAll: what is asked beyond the bound gets no answer.
func TestOneGuestCannotHaveAll(t *testing.T) {
	at := serve(t, newServer(newOutside(t)))
	conn, err := net.Dial("tcp", at) //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &wire.Conn{Conn: conn}
	answers := 0
	for range 1000 {
		if c.WriteMsg(new(wire.Msg).SetQuestion("web.", wire.TypeA)) != nil {
			break
		}
		if _, err := c.ReadMsg(); err != nil {
			break
		}
		answers++
	}
	if answers == 0 || answers > 64 {
		t.Errorf("%d answers on one connection", answers)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web.", "5.0.0.10.in-addr.arpa.", ".", "ip6.arpa.", strings.Repeat("a.", 100)} {
		q := new(wire.Msg).SetQuestion(name, wire.TypeA)
		packed, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	s := dns.New(dns.Options{Domain: "openstacklocal", Names: names, Inside: inside, Resolvers: "/nowhere"})
	f.Fuzz(func(t *testing.T, packet []byte) {
		q := new(wire.Msg)
		if q.Unpack(packet) != nil {
			return
		}
		a := s.Answer(t.Context(), q, false)
		packed, err := a.Pack()
		if err == nil && len(packed) > 1232 {
			t.Errorf("%d bytes for %d", len(packed), len(packet))
		}
	})
}
