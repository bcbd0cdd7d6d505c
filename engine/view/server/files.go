package server

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/view"
	"github.com/gantry-project/gantry/engine/view/fuse"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// The tree: a directory for each guest by its id, with the view's below, and the
// file "status" of the server itself. The numbers of a guest's nodes begin with
// its own (numberOf).
const (
	rootNode   = 1
	statusNode = 2
)

// files is the tree of the view.
type files struct {
	ctx    context.Context //nolint:containedctx // the kernel's requests bring none; it lives as long as the server
	guests *guests
	status Status
}

// Status is what the server says of itself in the file "status", as JSON.
type Status struct {
	Pid   int    `json:"pid"`
	Build string `json:"build"`
}

// numberOf is the number of a guest, the same for ever: a part of a digest, so
// that it need not be kept. That two of a host have the same one is as good as
// impossible.
func numberOf(id string) uint64 {
	sum := sha256.Sum256([]byte(id))
	return max(binary.BigEndian.Uint64(sum[:])>>view.NodeBits, 1)
}

// split returns the guest's number and its node, 0 for what belongs to none.
func split(node uint64) (guest uint64, id view.NodeID) {
	return node >> view.NodeBits, view.NodeID(node & (1<<view.NodeBits - 1))
}

func entryOf(guest uint64, n view.Node) fuse.Entry {
	return fuse.Entry{Node: guest<<view.NodeBits | uint64(n.ID), Name: n.Name, Dir: n.Dir, May: n.May}
}

// cpus of a guest; none of one that is not there.
func (f *files) cpus(guest uint64) int {
	g, err := f.guests.look(f.ctx, guest, 0, 0)
	if err != nil {
		return 0
	}
	return g.CPUs
}

// Lookup implements fuse.Tree. A guest's directory is there before the guest.
func (f *files) Lookup(dir uint64, name string) (fuse.Entry, error) {
	guest, id := split(dir)
	switch {
	case dir == rootNode && name == "status":
		return fuse.Entry{Node: statusNode, Name: name}, nil
	case dir == rootNode && isID(name):
		return entryOf(numberOf(name), view.Node{ID: view.Root, Dir: true}), nil
	case guest == 0:
		return fuse.Entry{}, unix.ENOENT
	}
	n, ok := view.Lookup(id, name, 0)
	if !ok && id != view.Root {
		n, ok = view.Lookup(id, name, f.cpus(guest))
	}
	if !ok {
		return fuse.Entry{}, unix.ENOENT
	}
	return entryOf(guest, n), nil
}

// Stat implements fuse.Tree.
func (f *files) Stat(node uint64) (fuse.Entry, error) {
	switch node {
	case rootNode:
		return fuse.Entry{Node: node, Dir: true}, nil
	case statusNode:
		return fuse.Entry{Node: node}, nil
	}
	guest, id := split(node)
	n, ok := view.Stat(id)
	if !ok || guest == 0 {
		return fuse.Entry{}, unix.ENOENT
	}
	return entryOf(guest, n), nil
}

// List implements fuse.Tree. The root shows no guests.
func (f *files) List(dir uint64) ([]fuse.Entry, error) {
	if dir == rootNode {
		return []fuse.Entry{{Node: statusNode, Name: "status"}}, nil
	}
	guest, id := split(dir)
	var list []fuse.Entry
	for _, n := range view.List(id, f.cpus(guest)) {
		list = append(list, entryOf(guest, n))
	}
	return list, nil
}

// Read implements fuse.Tree. Of a guest whose numbers cannot be read nothing is
// told: there are no others that would be right.
func (f *files) Read(pid int, node uint64) ([]byte, error) {
	if node == statusNode {
		text, err := json.Marshal(f.status)
		return append(text, '\n'), err
	}
	guest, id := split(node)
	g, err := f.guests.look(f.ctx, guest, pid, view.Needs(id))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", unix.EIO, err)
	}
	text, ok := view.Render(id, &g)
	if !ok {
		return nil, unix.EIO
	}
	return text, nil
}

// readStatus asks the server at dir. errdefs.ErrNotFound: nothing is mounted
// there; errdefs.ErrUnavailable: nobody serves it, or not in time.
func readStatus(ctx context.Context, dir string) (s Status, err error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() { // a read cannot be given up
		text, err := linux.ReadFile(dir + "/status") // the runtime's poller would hold up the whole program
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		switch {
		case errors.Is(r.err, os.ErrNotExist):
			return s, fmt.Errorf("%w: %w", r.err, errdefs.ErrNotFound)
		case r.err != nil:
			return s, fmt.Errorf("%w: %w", r.err, errdefs.ErrUnavailable)
		}
		if err := json.Unmarshal(r.text, &s); err != nil {
			return s, fmt.Errorf("status of the guests' view: %w: %w", err, errdefs.ErrUnavailable)
		}
		return s, nil
	case <-ctx.Done():
		return s, fmt.Errorf("status of the guests' view: %w: %w", context.Cause(ctx), errdefs.ErrUnavailable)
	}
}
