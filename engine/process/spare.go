package process

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A spare is a pair of namespaces that is made before anybody has asked for one:
// 0.4 ms and more that a start does not wait for. It is nobody's yet: it has no
// ids, nothing refers to it but a process that holds it, and that ends with the
// calling one at the latest.
type spare struct {
	mu     sync.Mutex
	closed bool        // guarded by mu
	made   *Namespaces // guarded by mu: nil for none
	late   *time.Timer // guarded by mu: lets go of made
}

// spareLife is how long a spare waits to be taken. A network namespace is some
// 100 KiB of the kernel's memory, and begins with settings of the host's as they
// were when it was made (sysctl net.ipv4.conf.*, net.ipv4.tcp_*).
const spareLife = time.Minute

// Spare begins to make namespaces for the next TakeNamespaces, unless there are
// some. After a minute, or with Close, they are gone.
func (n *Nursery) Spare() {
	if n == nil {
		return
	}
	s := &n.spare
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.made != nil {
		return
	}
	made := n.NewNamespaces()
	s.made, s.late = made, time.AfterFunc(spareLife, func() { s.forgo(made) })
}

// TakeNamespaces returns the spare ones, which are the caller's then, or else
// NewNamespaces.
func (n *Nursery) TakeNamespaces() *Namespaces {
	if n == nil {
		return n.NewNamespaces()
	}
	taken := n.spare.take(nil)
	if taken == nil {
		return n.NewNamespaces()
	}
	if taken.lost() {
		taken.Close()
		return n.NewNamespaces()
	}
	return taken
}

// take takes out the spare, if it is the one that is asked for; nil asks for any.
func (s *spare) take(only *Namespaces) *Namespaces {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.made
	if taken == nil || only != nil && only != taken {
		return nil
	}
	s.late.Stop()
	s.made, s.late = nil, nil
	return taken
}

// forgo lets go of a spare that nobody has taken.
func (s *spare) forgo(made *Namespaces) {
	if s.take(made) != nil {
		made.Close()
	}
}

func (s *spare) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if made := s.take(nil); made != nil {
		made.Close()
	}
}

// lost reports whether they could not be made, or somebody has killed the process
// that holds them. It does not wait for those that are still on their way.
func (n *Namespaces) lost() bool {
	select {
	case <-n.made:
	default:
		return false
	}
	if n.err != nil {
		return true
	}
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, n.held.child.pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	return err != nil || info.Signo != 0
}
