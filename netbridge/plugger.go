package netbridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/keylock"
)

// kernel is what the core needs of the host: Linux, or the fake's memory.
type kernel interface {
	// open prepares work on a plan. netns is empty when the plan has no
	// interfaces. errdefs.ErrNotFound when the namespace does not exist.
	open(netns string) (session, error)
	// owned lists all host ends that carry a mark of ours.
	owned() ([]hostLink, error)
	// stats reads one host end from the guest's side, and its alias;
	// errdefs.ErrNotFound when it is not there.
	stats(hostName string) (alias string, s Stats, err error)
}

// session is the work on one plan.
type session interface {
	// observe reads what the plan and the names need.
	observe(p Plan, names []string) (state, error)
	do(p Plan, s step) error
	close()
}

// plugger is the part of Plugger that all kernels share.
type plugger struct {
	kernel kernel
	locks  keylock.Map[string] // by owner

	mu sync.Mutex
	// known maps an owner to its host ends (device name to id). It is read
	// from the kernel once, because a dump of all links at each Set would grow
	// with the number of instances. Guarded by mu; nil until then.
	known map[string]map[string]string
}

// Set implements Plugger.
func (p *plugger) Set(ctx context.Context, plan Plan) error {
	if err := Validate(plan); err != nil {
		return err
	}
	if slices.ContainsFunc(plan.Interfaces, func(i Interface) bool { return i.Attachment == AttachOVS }) {
		return fmt.Errorf("plan of %q: open vswitch is netbridge/ovs's: %w", plan.Owner, errdefs.ErrInvalid)
	}
	unlock, err := p.locks.Lock(ctx, plan.Owner)
	if err != nil {
		return fmt.Errorf("set network of %s: %w", plan.Owner, err)
	}
	defer unlock()
	if err := p.set(ctx, plan); err != nil {
		return fmt.Errorf("set network of %s: %w", plan.Owner, err)
	}
	return nil
}

func (p *plugger) set(ctx context.Context, plan Plan) error {
	leftovers, err := p.leftovers(plan)
	if err != nil {
		return err
	}
	path := plan.NetNS
	if len(plan.Interfaces) == 0 {
		path = ""
	}
	s, err := p.kernel.open(path)
	if err != nil {
		return err
	}
	defer s.close()
	st, err := s.observe(plan, leftovers)
	if err != nil {
		return err
	}
	plan = named(plan, leftovers, st)
	steps, err := diff(plan, leftovers, st)
	if err != nil {
		return err
	}
	// Remember before doing: a host end that was half made is looked for again.
	p.remember(plan, leftovers)
	if err := apply(ctx, s, plan, steps); err != nil {
		return err
	}
	p.forget(plan, leftovers)
	return nil
}

// apply does the steps in order. The first failure ends the steps of its
// interface; the other interfaces go on.
func apply(ctx context.Context, s session, plan Plan, steps []step) error {
	var errs []error
	failed := map[int]bool{}
	for _, st := range steps {
		if failed[st.Index] {
			continue
		}
		err := ctx.Err()
		if err == nil {
			err = s.do(plan, st)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", st.render(plan), err))
			failed[st.Index] = true
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// leftovers names host ends of the owner that the plan does not have.
func (p *plugger) leftovers(plan Plan) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		if err := p.scan(); err != nil {
			return nil, err
		}
	}
	var names []string
	for name := range p.known[plan.Owner] {
		if !slices.ContainsFunc(plan.Interfaces, func(i Interface) bool { return slices.Contains(i.hostNames(), name) }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// scan fills known from the kernel; mu is held.
func (p *plugger) scan() error {
	links, err := p.kernel.owned()
	if err != nil {
		return fmt.Errorf("list host devices: %w", err)
	}
	known := map[string]map[string]string{}
	for _, l := range links {
		owner, id, ok := parseMark(l.Alias)
		if !ok {
			continue
		}
		if known[owner] == nil {
			known[owner] = map[string]string{}
		}
		known[owner][l.Name] = id
	}
	p.known = known
	return nil
}

func (p *plugger) remember(plan Plan, leftovers []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := map[string]string{}
	for _, name := range leftovers {
		m[name] = p.known[plan.Owner][name]
	}
	for _, i := range plan.Interfaces {
		for _, name := range i.hostNames() {
			m[name] = i.ID
		}
	}
	p.known[plan.Owner] = m
}

func (p *plugger) forget(plan Plan, leftovers []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range leftovers {
		delete(p.known[plan.Owner], name)
	}
	if len(p.known[plan.Owner]) == 0 {
		delete(p.known, plan.Owner)
	}
}

// Stats implements Plugger. An interface that went away meanwhile is left out.
func (p *plugger) Stats(ctx context.Context, owner string) ([]Stats, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("network counters of %s: %w", owner, err)
	}
	// A plan without interfaces has only leftovers: all that is there.
	names, err := p.leftovers(Plan{Owner: owner})
	if err != nil {
		return nil, fmt.Errorf("network counters of %s: %w", owner, err)
	}
	var out []Stats
	for _, name := range names {
		alias, st, err := p.kernel.stats(name)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("network counters of %s: device %s: %w", owner, name, err)
		}
		if o, id, ok := parseMark(alias); ok && o == owner {
			st.ID = id
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b Stats) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Owners implements Plugger. It asks the kernel each time.
func (p *plugger) Owners(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list network owners: %w", err)
	}
	links, err := p.kernel.owned()
	if err != nil {
		return nil, fmt.Errorf("list network owners: %w", err)
	}
	seen := map[string]bool{}
	var owners []string
	for _, l := range links {
		if o, _, ok := parseMark(l.Alias); ok && !seen[o] {
			seen[o] = true
			owners = append(owners, o)
		}
	}
	slices.Sort(owners)
	return owners, nil
}
