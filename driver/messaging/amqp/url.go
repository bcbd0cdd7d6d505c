package amqp

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// URL is a parsed transport_url.
type URL struct {
	// Hosts are the brokers of one cluster, at least one.
	Hosts []Host
	// VHost is "/" when the URL names none.
	VHost string
}

// Host is one broker and the account there.
type Host struct {
	Name, User, Password string
	Port                 int
}

// Address is host:port, with brackets for IPv6.
func (h Host) Address() string { return net.JoinHostPort(h.Name, strconv.Itoa(h.Port)) }

// String is the address; the account is never printed.
func (h Host) String() string { return h.Address() }

// GoString keeps the password out of %#v.
func (h Host) GoString() string { return h.Address() }

const defaultPort = 5672

// ParseURL reads transport_url: rabbit://USER:PASS@HOST:PORT[,...]/VHOST.
// User, password and vhost are percent-encoded, IPv6 addresses stand in
// brackets. Without a user it is guest with password guest, as in kombu. A
// query is ignored. Errors are errdefs.ErrInvalid and never hold the URL's
// account (oslo_messaging/transport.py, TransportURL.parse).
func ParseURL(s string) (URL, error) {
	fail := func(what string) (URL, error) {
		return URL{}, fmt.Errorf("transport_url: %w: %s", errdefs.ErrInvalid, what)
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return fail("expected rabbit://USER:PASS@HOST:PORT/VHOST")
	}
	if scheme != "rabbit" && scheme != "kombu" && !strings.HasPrefix(scheme, "kombu+") {
		return fail("expected the scheme rabbit")
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, _, _ = strings.Cut(rest, "?")
	netloc, path, _ := strings.Cut(rest, "/")
	vhost, err := url.PathUnescape(path)
	if err != nil {
		return fail("bad percent-encoding in the vhost")
	}
	if vhost == "" {
		vhost = "/"
	}
	u := URL{VHost: vhost}
	for i, part := range strings.Split(netloc, ",") {
		if part == "" {
			continue
		}
		h, problem := parseHost(part)
		if problem != "" {
			return fail(fmt.Sprintf("%s in host %d", problem, i+1))
		}
		u.Hosts = append(u.Hosts, h)
	}
	if len(u.Hosts) == 0 {
		return fail("no host")
	}
	return u, nil
}

// parseHost reads USER:PASS@HOST:PORT and says what is wrong with it.
func parseHost(s string) (h Host, problem string) {
	h = Host{User: "guest", Password: "guest", Port: defaultPort}
	if at := strings.LastIndex(s, "@"); at >= 0 {
		user, password, _ := strings.Cut(s[:at], ":")
		var err1, err2 error
		h.User, err1 = url.PathUnescape(user)
		h.Password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return h, "bad percent-encoding of the account"
		}
		s = s[at+1:]
	}
	port := ""
	if inner, ok := strings.CutPrefix(s, "["); ok {
		name, after, closed := strings.Cut(inner, "]")
		if !closed || net.ParseIP(name) == nil {
			return h, "bad IPv6 address"
		}
		h.Name = name
		if after != "" && !strings.HasPrefix(after, ":") {
			return h, "bad port"
		}
		port = strings.TrimPrefix(after, ":")
	} else {
		h.Name, port, _ = strings.Cut(s, ":")
	}
	if h.Name == "" {
		return h, "no name"
	}
	if port != "" {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			return h, "bad port"
		}
		h.Port = n
	}
	return h, ""
}
