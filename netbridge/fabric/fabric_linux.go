package fabric

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/firewall"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// Fabric makes networks. It needs CAP_NET_ADMIN and CAP_SYS_ADMIN. Methods may
// be called from any goroutine; changes are made one after the other.
type Fabric struct {
	o  Options
	mu sync.Mutex // held over a change; guards all below

	groups map[string][]netip.Prefix
	ports  map[string]filtered
	looked bool              // at what is filtered, since the process started
	filter firewall.Ports    // nil until it is needed
	marks  map[uint32]string // ports by the mark of their packets
	zones  map[uint16]string // networks by the number that keeps their connections apart
	doors  doors
	served map[string]*served // networks by id
	// adverts are what routers say of themselves, by pin and device.
	adverts map[string]map[string]advert
	// What was set, for Repair.
	networks map[string]Network
	routers  map[string]Router
	memory   firewall.Memory
}

// filtered is a port with its filter.
type filtered struct {
	network string
	port    firewall.Port
}

// New returns a Fabric. It changes nothing. It knows nothing of ports that an
// earlier process filtered until Sync has told it.
func New(o Options) *Fabric {
	return &Fabric{
		o: o, marks: map[uint32]string{}, groups: map[string][]netip.Prefix{}, ports: map[string]filtered{}, zones: map[uint16]string{}, served: map[string]*served{},
		adverts: map[string]map[string]advert{}, networks: map[string]Network{}, routers: map[string]Router{}, memory: firewall.Memory{},
	}
}

const markPrefix = "gantry-net:"

// mark is the alias of a link that is ours.
func (f *Fabric) mark(id string) string { return markPrefix + f.o.Cloud + ":" + id }

// chain is the name of a chain of the firewall in the host's namespace. A
// chain's name is short: a sum stands for the cloud and the network.
func (f *Fabric) chain(kind, id string) string {
	sum := sha256.Sum256([]byte(f.o.Cloud + ":" + id))
	return "gantry-" + kind + "-" + hex.EncodeToString(sum[:6])
}

// mac is the address of a bridge that has addresses of the host's.
func (f *Fabric) mac(id string) string {
	sum := sha256.Sum256([]byte(f.o.Cloud + ":" + id))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}.String()
}

// zone is the number of a network's connections in the kernel's table: bridged
// packets of networks with the same addresses are kept apart by it. It follows
// from the id as far as no other network has it.
func (f *Fabric) zone(id string) uint16 {
	sum := sha256.Sum256([]byte(id))
	for n := uint16(sum[0])<<8 | uint16(sum[1]); ; n++ {
		if has, taken := f.zones[n]; n != 0 && (!taken || has == id) {
			f.zones[n] = id
			return n
		}
	}
}

// portMark is the number of a port's packets while they are filtered.
func (f *Fabric) portMark(id string) uint32 {
	n := firewall.MarkOf(f.o.Cloud+":"+id, func(n uint32) bool { has, taken := f.marks[n]; return taken && has != id })
	f.marks[n] = id
	return n
}

// filters is what filters, found out at first use.
func (f *Fabric) filters(s *session) firewall.Ports {
	if f.filter == nil {
		f.filter = firewall.Pick(s.ns, f.chain("sg", ""), f.o.Programs)
	}
	return f.filter
}

// session is the connections of one change.
type session struct {
	ns   *os.File // nil: own
	host *link.Conn
}

// open locks the fabric and connects to the host's namespace.
func (f *Fabric) open(ctx context.Context) (*session, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	s, err := f.connect()
	if err != nil {
		f.mu.Unlock()
		return nil, nil, err
	}
	return s, func() {
		s.close()
		f.mu.Unlock()
	}, nil
}

func (f *Fabric) connect() (*session, error) {
	s := &session{}
	if f.o.HostNetNS != "" {
		ns, err := netns.Open(f.o.HostNetNS)
		if err != nil {
			return nil, err
		}
		s.ns = ns
	}
	var err error
	if s.host, err = link.Open(s.ns, nil); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() {
	if s.host != nil {
		s.host.Close()
	}
	if s.ns != nil {
		_ = s.ns.Close()
	}
}

// sysctl writes settings below /proc/sys/net of a namespace. A kernel that lacks
// one (IPv6 switched off) needs it not.
func sysctl(ns *os.File, settings ...[2]string) error {
	return netns.Do(ns, func() error {
		for _, s := range settings {
			file, err := os.OpenFile("/proc/sys/net/"+s[0], os.O_WRONLY, 0)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("set net/%s: %w", s[0], err)
			}
			_, err = file.WriteString(s[1])
			if err := errors.Join(err, file.Close()); err != nil {
				return fmt.Errorf("set net/%s: %w", s[0], err)
			}
		}
		return nil
	})
}

// Sync makes everything, and removes what of this cloud is not named. It tries
// all and joins the errors.
func (f *Fabric) Sync(ctx context.Context, w World) error {
	var errs []error
	wanted, pins := map[string]bool{}, map[string]bool{}
	for _, n := range w.Networks {
		wanted[n.ID], pins[servingPin(n.ID)] = true, true
		errs = append(errs, f.SetNetwork(ctx, n))
	}
	errs = append(errs, f.syncPorts(ctx, w.Groups, w.Ports))
	for _, r := range w.Routers {
		pins[routerPin(r.ID)] = true
		errs = append(errs, f.SetRouter(ctx, r))
	}
	errs = append(errs, f.removePins(ctx, pins))
	left, err := f.bridges(ctx)
	errs = append(errs, err)
	for _, n := range left {
		if !wanted[n.ID] {
			errs = append(errs, f.SetNetwork(ctx, n))
		}
	}
	return errors.Join(errs...)
}

// removePins removes the namespaces that are not wanted. Those of networks that
// go are among them.
func (f *Fabric) removePins(ctx context.Context, wanted map[string]bool) error {
	_, done, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer done()
	names, err := f.pinned()
	errs := []error{err}
	for _, name := range names {
		if id, ok := strings.CutPrefix(name, servingPin("")); ok && !wanted[name] {
			errs = append(errs, f.unserve(id))
		} else if !wanted[name] {
			errs = append(errs, f.removePin(name))
		}
	}
	return errors.Join(errs...)
}

// bridges lists the bridges of this cloud, as plans of their removal.
func (f *Fabric) bridges(ctx context.Context) ([]Network, error) {
	s, done, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	links, err := s.host.List()
	if err != nil {
		return nil, err
	}
	var out []Network
	for _, l := range links {
		if id, ok := strings.CutPrefix(l.Alias, f.mark("")); ok && l.Kind == "bridge" {
			out = append(out, Network{ID: id, Bridge: l.Name, Absent: true})
		}
	}
	return out, nil
}

// foreign is the refusal to touch what is not ours.
func foreign(l link.Link) error {
	return fmt.Errorf("host device %s is not ours: %w", l.Name, errdefs.ErrConflict)
}
