package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// patience is how long one resolver may take.
const patience = 2 * time.Second

// resolvers are the name servers of the host machine. They are asked from its
// namespace, so that one on the loopback (systemd-resolved's 127.0.0.53) will do.
type resolvers struct {
	path string

	mu      sync.Mutex // guards all below
	read    os.FileInfo
	servers []string
}

// list is what path says; like libc's, without any it is the loopback.
func (r *resolvers) list() ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, err := os.Stat(r.path)
	if err != nil {
		return nil, fmt.Errorf("resolvers of the host: %w: %w", err, errdefs.ErrUnavailable)
	}
	if r.read != nil && os.SameFile(r.read, now) && r.read.ModTime().Equal(now.ModTime()) && r.read.Size() == now.Size() {
		return r.servers, nil
	}
	config, err := dns.ClientConfigFromFile(r.path)
	if err != nil {
		return nil, fmt.Errorf("resolvers of the host: %w: %w", err, errdefs.ErrUnavailable)
	}
	r.read, r.servers = now, nil
	for _, s := range config.Servers {
		r.servers = append(r.servers, net.JoinHostPort(s, config.Port))
	}
	if len(r.servers) == 0 {
		r.servers = []string{net.JoinHostPort("127.0.0.1", "53")}
	}
	return r.servers, nil
}

// ask fills a with what the first resolver says that answers at all. What is
// sent has nothing of q but its question, and what comes back keeps nothing but
// the records.
func (r *resolvers) ask(ctx context.Context, a, q *dns.Msg, stream bool) {
	servers, err := r.list()
	if err != nil {
		a.Rcode = dns.RcodeServerFailure
		return
	}
	var ours dns.Msg
	ours.SetQuestion(q.Question[0].Name, q.Question[0].Qtype)
	opt := q.IsEdns0()
	ours.SetEdns0(largestPayload, opt != nil && opt.Do())
	ours.CheckingDisabled = q.CheckingDisabled
	client := dns.Client{Net: "udp", Timeout: patience, UDPSize: largestPayload}
	if stream {
		client.Net = "tcp"
	}
	a.Rcode = dns.RcodeServerFailure
	for _, server := range servers {
		if ctx.Err() != nil {
			return
		}
		got, _, err := client.ExchangeContext(ctx, &ours, server)
		if err != nil || got == nil || check(&ours, got) != nil {
			continue
		}
		a.Rcode, a.Truncated, a.AuthenticatedData = got.Rcode, got.Truncated, got.AuthenticatedData
		a.Answer, a.Ns, a.Extra = got.Answer, got.Ns, withoutOPT(got.Extra)
		if got.Rcode != dns.RcodeServerFailure && got.Rcode != dns.RcodeRefused {
			return
		}
	}
}

// check refuses an answer to another question.
func check(q, a *dns.Msg) error {
	if len(a.Question) == 1 && a.Response {
		asked, answered := q.Question[0], a.Question[0]
		if strings.EqualFold(asked.Name, answered.Name) && asked.Qtype == answered.Qtype && asked.Qclass == answered.Qclass {
			return nil
		}
	}
	return errors.New("not the answer")
}

func withoutOPT(all []dns.RR) []dns.RR {
	var out []dns.RR
	for _, r := range all {
		if _, ok := r.(*dns.OPT); !ok {
			out = append(out, r)
		}
	}
	return out
}
