package firewall

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// tabled filters by two tables of nf_tables of that name (Change.Dispatch is the
// same), one of the bridge family for frames and one of inet for packets. All
// kinds of packets change at once, and neither a change nor a packet goes
// through the ports there are: maps lead from a device to its port.
//
// A frame gets its port's mark where the address that it comes from is checked.
// The mark leads the packet to the port's rules, first thing after its
// connection is known, and is taken away there; so it is towards a device, where
// packets are forwarded. Of others' rules only those of raw tables see a mark.
//
// It keeps a connection to one namespace from its first use until Close: the
// kernel, when one is closed, waits until what was removed through any is gone.
type tabled struct {
	name string

	mu     sync.Mutex // held over a change; guards what follows
	conn   *nftables.Conn
	socket *netlink.Conn
	held   uint32 // the generation of rules at which all was found to hold; 0: none
}

// MarkOf is a mark for a port: taken says which ones are others' already. The id
// names the cloud, too: those of several clouds on one host are to be different.
func MarkOf(id string, taken func(mark uint32) bool) uint32 {
	sum := sha256.Sum256([]byte(id))
	for n := binary.BigEndian.Uint32(sum[:]); ; n++ {
		if mark := n | ownMark; !taken(mark) {
			return mark
		}
	}
}

// ownMark is in each mark of ours: people use small ones.
const ownMark = 1 << 31

// Names of maps: from device to a chain of frames, from device to a mark, and
// from a mark to chains of packets.
const (
	fromMap, toMap  = "from", "to"
	ingressMap      = "ingress"
	egressMap       = "egress"
	patience        = 30 * time.Second
	buffer          = 64 << 20
	beforeAll       = -300 // as the first of ebtables' tables
	afterConnection = -175 // connections are known at -200, others' rules begin at -150
)

func (t *tabled) frames() *nftables.Table {
	return &nftables.Table{Name: t.name, Family: nftables.TableFamilyBridge}
}

func (t *tabled) packets() *nftables.Table {
	return &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
}

// transaction is changes that are made all or none.
type transaction struct {
	*nftables.Conn
	*tabled

	errs []error
	sets uint32
}

// change runs f, and makes what it asks for.
func (t *tabled) change(ns *os.File, f func(x *transaction) error) error {
	return t.with(ns, func(x *transaction) error {
		if err := f(x); err != nil {
			return err
		}
		if err := errors.Join(x.errs...); err != nil {
			return err
		}
		return x.Flush()
	})
}

// with runs f with a connection, which is not used again after an error.
func (t *tabled) with(ns *os.File, f func(x *transaction) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		if err := netns.Do(ns, t.connect); err != nil {
			return fmt.Errorf("connect to nf_tables: %w", err)
		}
	}
	err := t.socket.SetDeadline(time.Now().Add(patience))
	if err == nil {
		err = f(&transaction{Conn: t.conn, tabled: t})
	}
	if err != nil {
		_ = t.close()
	}
	return err
}

// connect opens the connection; mu is held.
func (t *tabled) connect() (err error) {
	t.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		t.socket = c
		// A change is one message, and each of its parts is answered.
		return errors.Join(c.SetReadBuffer(buffer), c.SetWriteBuffer(buffer))
	}))
	return err
}

// close ends the connection; mu is held.
func (t *tabled) close() error {
	if t.conn == nil {
		return nil
	}
	err := t.conn.CloseLasting()
	t.conn, t.socket = nil, nil
	return err
}

// Close implements Ports.
func (t *tabled) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.close()
}

// Pick chooses for a namespace: tables of that name where the kernel can do it
// and programs are not asked for. Then nothing is left of the other's after a
// Change.Fresh. The name is that of Change.Dispatch.
func Pick(ns *os.File, name string, withPrograms bool) Ports {
	t := &tabled{name: name}
	if !withPrograms && Probe(ns) == nil {
		return t
	}
	return programs{t}
}

// Probe reports whether the kernel has all that tables need. It changes
// nothing; errdefs.ErrUnsupported says that it has not.
func Probe(ns *os.File) error {
	t := &tabled{name: "gantry-probe"}
	defer func() { _ = t.Close() }()
	all := netip.MustParsePrefix("10.0.0.0/8")
	p := Port{
		ID: "gantry-probe", Device: "gantry-probe", Mark: ownMark, Sources: []Source{{MAC: "fa:16:3e:00:00:01", Address: all}},
		Rules: []Rule{{First: -1, Last: -1, Set: "set"}, {Protocol: udp, First: 1, Last: 2, Remote: all}},
	}
	err := t.change(ns, func(x *transaction) error {
		x.base()
		x.fillSet("set", false, []netip.Prefix{all})
		x.write([]Port{p}, []Port{p})
		x.DelTable(t.frames())
		x.DelTable(t.packets())
		return nil
	})
	if err != nil {
		return fmt.Errorf("probe nf_tables: %w: %w", err, errdefs.ErrUnsupported)
	}
	return nil
}

// Filter implements Ports.
func (t *tabled) Filter(ctx context.Context, ns *os.File, c Change) error {
	err := t.filter(ctx, ns, c)
	if err != nil && !c.Fresh {
		// Somebody has taken away what the change builds on.
		c.Fresh, c.Fill = true, c.All
		err = t.filter(ctx, ns, c)
	}
	if err != nil {
		return fmt.Errorf("filter of bridged devices: %w", err)
	}
	return nil
}

func (t *tabled) filter(ctx context.Context, ns *os.File, c Change) error {
	if !c.Fresh {
		return t.change(ns, func(x *transaction) error {
			x.remove(c.Gone)
			x.write(c.Added, c.Fill)
			return nil
		})
	}
	if err := netns.Do(ns, func() error { return bridged(ctx) }); err != nil {
		return err
	}
	if err := t.anew(ns, c); err != nil {
		return err
	}
	// What an earlier version has made goes when all are filtered by this one.
	return Filter(ctx, ns, Change{Dispatch: c.Dispatch, Fresh: true})
}

// anew writes everything.
func (t *tabled) anew(ns *os.File, c Change) error {
	return t.change(ns, func(x *transaction) error {
		chains, err := x.chains()
		if err != nil {
			return err
		}
		if len(c.All) == 0 {
			return x.drop()
		}
		x.base()
		for _, table := range []*nftables.Table{t.frames(), t.packets()} {
			x.FlushTable(table)
		}
		for _, m := range t.maps() {
			x.FlushSet(m)
		}
		x.hooks()
		x.write(c.All, c.All)
		for _, chain := range chains {
			if chain.Hooknum == nil && !slices.ContainsFunc(c.All, func(p Port) bool { return p.egress() == chain.Name || p.ingress() == chain.Name }) {
				x.DelChain(chain)
			}
		}
		return nil
	})
}

// chains are those of both tables.
func (x *transaction) chains() ([]*nftables.Chain, error) {
	var out []*nftables.Chain
	for _, table := range []*nftables.Table{x.frames(), x.packets()} {
		all, err := x.ListChainsOfTableFamily(table.Family)
		if err != nil {
			return nil, fmt.Errorf("list chains: %w", err)
		}
		for _, c := range all {
			if c.Table.Name == table.Name {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// drop removes all there is.
func (x *transaction) drop() error {
	for _, table := range []*nftables.Table{x.frames(), x.packets()} {
		x.AddTable(table) // so that it is there
		x.DelTable(table)
	}
	return nil
}

func (t *tabled) maps() []*nftables.Set {
	one := func(table *nftables.Table, id uint32, name string, key, data nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: table, ID: id, Name: name, KeyType: key, IsMap: true, DataType: data}
	}
	return []*nftables.Set{
		one(t.frames(), 1, fromMap, nftables.TypeIFName, nftables.TypeVerdict),
		one(t.frames(), 2, toMap, nftables.TypeIFName, nftables.TypeMark),
		one(t.packets(), 3, egressMap, nftables.TypeMark, nftables.TypeVerdict),
		one(t.packets(), 4, ingressMap, nftables.TypeMark, nftables.TypeVerdict),
	}
}

// base makes tables, maps and the chains where packets come by, as far as they
// are not there.
func (x *transaction) base() {
	for _, table := range []*nftables.Table{x.frames(), x.packets()} {
		x.AddTable(table)
	}
	for _, m := range x.maps() {
		x.errs = append(x.errs, x.AddSet(m, nil))
	}
	for _, c := range x.hooked() {
		x.AddChain(c)
	}
}

func (t *tabled) hooked() []*nftables.Chain {
	one := func(table *nftables.Table, name string, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
		return &nftables.Chain{Table: table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority}
	}
	return []*nftables.Chain{
		one(t.frames(), fromMap, nftables.ChainHookPrerouting, beforeAll),
		one(t.frames(), toMap, nftables.ChainHookForward, beforeAll),
		one(t.packets(), egressMap, nftables.ChainHookPrerouting, afterConnection),
		one(t.packets(), ingressMap, nftables.ChainHookForward, afterConnection),
	}
}

// hookRules are the rules of the chains where packets come by, by their names.
func hookRules() map[string][]words {
	out := map[string][]words{
		fromMap: {lookup(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register}, fromMap, true)},
		toMap: {{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register},
			&expr.Lookup{SourceRegister: register, DestRegister: register, IsDestRegSet: true, SetName: toMap},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
		}},
	}
	for _, name := range []string{egressMap, ingressMap} {
		out[name] = []words{lookup(&expr.Meta{Key: expr.MetaKeyMARK, Register: register}, name, true)}
	}
	return out
}

func (x *transaction) hooks() {
	rules := hookRules()
	for _, c := range x.hooked() {
		x.rules(c, rules[c.Name])
	}
}

func (x *transaction) rules(c *nftables.Chain, rules []words) {
	for _, r := range rules {
		x.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: r})
	}
}

// own are a port's chains.
func (t *tabled) own(p Port) []*nftables.Chain {
	return []*nftables.Chain{{Table: t.frames(), Name: p.egress()}, {Table: t.packets(), Name: p.egress()}, {Table: t.packets(), Name: p.ingress()}}
}

// wanted are the rules of own, in its order.
func (p Port) wanted() [][]words {
	return [][]words{p.frameRules(), p.packetRules(false), p.packetRules(true)}
}

// write fills chains of ports, and leads to those that are added.
func (x *transaction) write(added, fill []Port) {
	for _, p := range fill {
		rules := p.wanted()
		for n, c := range x.own(p) {
			x.AddChain(c)
			x.FlushChain(c)
			x.rules(c, rules[n])
		}
	}
	x.members(added, x.SetAddElements)
}

func (x *transaction) remove(gone []Port) {
	x.members(gone, x.SetDeleteElements)
	for _, p := range gone {
		for _, c := range x.own(p) {
			x.FlushChain(c)
			x.DelChain(c)
		}
	}
}

// members changes what the maps have of ports.
func (x *transaction) members(ports []Port, change func(*nftables.Set, []nftables.SetElement) error) {
	if len(ports) == 0 {
		return
	}
	for n, m := range x.maps() {
		elements := make([]nftables.SetElement, 0, len(ports))
		for _, p := range ports {
			elements = append(elements, p.elements()[n])
		}
		for some := range slices.Chunk(elements, 200) { // an attribute holds 64 KiB
			x.errs = append(x.errs, change(m, some))
		}
	}
}

// elements of a port, in the order of maps.
func (p Port) elements() []nftables.SetElement {
	mark := binaryutil.NativeEndian.PutUint32(p.Mark)
	to := func(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }
	return []nftables.SetElement{
		{Key: device(p.Device), VerdictData: to(p.egress())},
		{Key: device(p.Device), Val: mark},
		{Key: mark, VerdictData: to(p.egress())},
		{Key: mark, VerdictData: to(p.ingress())},
	}
}

// Sets implements Ports.
func (t *tabled) Sets(ns *os.File, v6 bool, sets map[string][]netip.Prefix) error {
	if len(sets) == 0 {
		return nil
	}
	err := t.change(ns, func(x *transaction) error {
		x.AddTable(t.packets())
		for name, members := range sets {
			x.fillSet(name, v6, members)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sets of addresses: %w", err)
	}
	return nil
}

// fillSet gives a set its members and no others.
func (x *transaction) fillSet(name string, v6 bool, members []netip.Prefix) {
	x.sets++
	s := &nftables.Set{Table: x.packets(), ID: 100 + x.sets, Name: name, Interval: true, KeyType: nftables.TypeIPAddr}
	if v6 {
		s.KeyType = nftables.TypeIP6Addr
	}
	x.errs = append(x.errs, x.AddSet(s, nil))
	x.FlushSet(s)
	for some := range slices.Chunk(intervals(v6, members), 500) {
		x.errs = append(x.errs, x.SetAddElements(s, some))
	}
}

// intervals are the members of one version as a set takes them: in order, and
// none inside another.
func intervals(v6 bool, members []netip.Prefix) []nftables.SetElement {
	var own []netip.Prefix
	for _, m := range members {
		if m.Addr().Is6() == v6 {
			own = append(own, m.Masked())
		}
	}
	slices.SortFunc(own, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []nftables.SetElement
	var last netip.Prefix
	for _, p := range own {
		if last.IsValid() && last.Contains(p.Addr()) {
			continue
		}
		last = p
		if n := len(out) - 1; n >= 0 && out[n].IntervalEnd && slices.Equal(out[n].Key, p.Addr().AsSlice()) {
			out = out[:n] // goes on
		} else {
			out = append(out, nftables.SetElement{Key: p.Addr().AsSlice()})
		}
		if end, ok := after(p); ok {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// after is the first address behind a network; there is none behind the last.
func after(p netip.Prefix) (netip.Addr, bool) {
	b := p.Addr().AsSlice()
	for i := range b {
		if host := 8*(i+1) - p.Bits(); host > 0 {
			b[i] |= byte(1<<min(host, 8) - 1)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	a = a.Next()
	return a, a.IsValid()
}

// DropSets implements Ports.
func (t *tabled) DropSets(ns *os.File, prefix string, kept func(name string) bool) error {
	var errs []error
	if err := DropSets(ns, prefix, func(string) bool { return false }); err != nil {
		errs = append(errs, err) // an earlier version's
	}
	all, gone := t.found(ns, prefix, kept)
	for _, s := range gone {
		err := t.change(ns, func(x *transaction) error { x.DelSet(s); return nil })
		if err != nil {
			err = t.change(ns, func(x *transaction) error { x.FlushSet(s); return nil })
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove set %s: %w", s.Name, err))
		}
	}
	if len(all) == len(gone) && len(errs) == 0 { // without maps there are no ports
		errs = append(errs, t.change(ns, func(x *transaction) error { return x.drop() }))
	}
	return errors.Join(errs...)
}

// found are all sets and maps, and those that are not kept.
func (t *tabled) found(ns *os.File, prefix string, kept func(name string) bool) (all, gone []*nftables.Set) {
	_ = t.with(ns, func(x *transaction) (err error) {
		all, err = x.GetSets(t.packets())
		return err // no such table
	})
	for _, s := range all {
		if strings.HasPrefix(s.Name, prefix) && !kept(s.Name) {
			gone = append(gone, s)
		}
	}
	return all, gone
}
