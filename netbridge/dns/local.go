package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// local answers what only the network knows, and reports whether it did.
func (s *Server) local(a *dns.Msg, q dns.Question) bool {
	if address, ok := reverse(q.Name); ok {
		return s.pointer(a, q, address)
	}
	host, ours := s.relative(q.Name)
	if !ours || q.Name == "." {
		return false
	}
	a.Authoritative = true
	if host == "" { // the domain itself
		a.Ns = s.soa()
		return true
	}
	found := addressesOf(s.o.Names(), host)
	for _, address := range found {
		if r := record(q, address); r != nil {
			a.Answer = append(a.Answer, r)
		}
	}
	if len(found) == 0 {
		a.Rcode = dns.RcodeNameError
	}
	if len(a.Answer) == 0 {
		a.Ns = s.soa()
	}
	return true
}

// addressesOf are those of all hosts of a name.
func addressesOf(names []Name, host string) (out []netip.Addr) {
	for _, n := range names {
		if strings.EqualFold(n.Host, host) {
			out = append(out, n.Addresses...)
			continue
		}
		for _, a := range n.Addresses {
			if dashed := dashes(a); host == "host-"+dashed || host == "ip-"+dashed {
				out = append(out, a)
			}
		}
	}
	return out
}

func dashes(a netip.Addr) string { return strings.NewReplacer(".", "-", ":", "-").Replace(a.String()) }

// record is nil for an address of the other version.
func record(q dns.Question, a netip.Addr) dns.RR {
	h := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: localTTL}
	switch {
	case q.Qtype == dns.TypeA && a.Is4():
		return &dns.A{Hdr: h, A: a.AsSlice()}
	case q.Qtype == dns.TypeAAAA && a.Is6():
		return &dns.AAAA{Hdr: h, AAAA: a.AsSlice()}
	}
	return nil
}

// pointer answers for an address of the network; others are not ours to know.
func (s *Server) pointer(a *dns.Msg, q dns.Question, address netip.Addr) bool {
	names := s.o.Names()
	at := slices.IndexFunc(names, func(n Name) bool { return slices.Contains(n.Addresses, address) })
	if at < 0 && !s.o.Inside(address) {
		return false
	}
	a.Authoritative = true
	switch {
	case at < 0:
		a.Rcode, a.Ns = dns.RcodeNameError, s.soa()
	case q.Qtype != dns.TypePTR:
		a.Ns = s.soa()
	default:
		host := names[at].Host
		if host == "" {
			host = "host-" + dashes(address)
		}
		h := dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: localTTL}
		a.Answer = []dns.RR{&dns.PTR{Hdr: h, Ptr: dns.Fqdn(host + "." + s.o.Domain)}}
	}
	return true
}

// reverse is the address that a name below in-addr.arpa or ip6.arpa stands for.
func reverse(name string) (netip.Addr, bool) {
	name = strings.ToLower(name)
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if digits := strings.Split(rest, "."); ok && len(digits) == 32 {
		slices.Reverse(digits)
		var b strings.Builder
		for i, d := range digits {
			if i > 0 && i%4 == 0 {
				b.WriteByte(':')
			}
			b.WriteString(d)
		}
		a, err := netip.ParseAddr(b.String())
		return a, err == nil && a.Is6() && a.Zone() == ""
	}
	return netip.Addr{}, false
}

// soa says for how long there is no such thing (RFC 2308).
func (s *Server) soa() []dns.RR {
	domain := dns.Fqdn(s.o.Domain)
	return []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: domain, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: localTTL},
		Ns:  domain, Mbox: "hostmaster." + domain, Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: localTTL,
	}}
}
