package process

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// Names of the pinned namespaces in the directory of CreateNamespaces.
const (
	userPin = "user"
	netPin  = "net"
)

// CreateNamespaces makes a user namespace with the given maps and a network
// namespace that belongs to it, and pins both by bind mounts on files of the
// directory dir, made with mode 0700 if absent. The paths are for
// Spec.Namespaces (see DefaultNamespaces). Its loopback device is down: networks are netbridge's.
//
// Namespaces that dir holds already are errdefs.ErrAlreadyExists; what an
// interrupted call left is replaced. On error nothing is left.
func CreateNamespaces(ctx context.Context, dir string, uidMap, gidMap []IDMap) (userPath, netPath string, err error) {
	if user, net := NamespacePaths(dir); pinned(user) && pinned(net) {
		return "", "", fmt.Errorf("make namespaces in %s: %w", dir, errdefs.ErrAlreadyExists)
	}
	n := (*Nursery)(nil).NewNamespaces()
	defer n.Close()
	return n.Pin(ctx, dir, uidMap, gidMap)
}

// Namespaces are a user and a network namespace on their way, which nothing
// refers to yet but a process that holds them. So a caller can have them made
// while it finds out whose they will be. They are gone after Close, or with the
// calling process, unless they were pinned.
type Namespaces struct {
	made chan struct{} // closed when held and err are valid
	held *namespaceHolder
	err  error
}

// NewNamespaces begins to make them in the background. Close them.
func (n *Nursery) NewNamespaces() *Namespaces {
	ns := &Namespaces{made: make(chan struct{})}
	go func() {
		defer close(ns.made)
		ns.held, ns.err = holdNamespaces(n, unix.CLONE_NEWUSER|unix.CLONE_NEWNET)
	}()
	return ns
}

// Close lets go of what was not pinned.
func (n *Namespaces) Close() {
	<-n.made
	if n.held != nil {
		n.held.release()
		n.held = nil
	}
}

// Open gives the user namespace its maps, which must not hold the host's root
// (errdefs.ErrInvalid), and returns both namespaces, which live as long as a
// file or a process is in the way of their end. Once, and instead of Pin.
func (n *Namespaces) Open(uidMap, gidMap []IDMap) (user, network *os.File, err error) {
	uids, err := mapText(uidMap)
	if err != nil {
		return nil, nil, err
	}
	gids, err := mapText(gidMap)
	if err != nil {
		return nil, nil, err
	}
	<-n.made
	if n.err != nil {
		return nil, nil, fmt.Errorf("make namespaces: %w", n.err)
	}
	if err := n.held.mapIDs(uids, gids); err != nil {
		return nil, nil, fmt.Errorf("make namespaces: %w", err)
	}
	if user, err = n.held.open(userPin); err != nil {
		return nil, nil, fmt.Errorf("make namespaces: %w", err)
	}
	if network, err = n.held.open(netPin); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make namespaces: %w", err), user.Close())
	}
	return user, network, nil
}

// Pin is the rest of CreateNamespaces, with its errors. Once.
func (n *Namespaces) Pin(ctx context.Context, dir string, uidMap, gidMap []IDMap) (userPath, netPath string, err error) {
	uids, err := mapText(uidMap)
	if err != nil {
		return "", "", err
	}
	gids, err := mapText(gidMap)
	if err != nil {
		return "", "", err
	}
	userPath, netPath = NamespacePaths(dir)
	if pinned(userPath) && pinned(netPath) {
		return "", "", fmt.Errorf("make namespaces in %s: %w", dir, errdefs.ErrAlreadyExists)
	}
	if err := RemoveNamespaces(dir); err != nil {
		return "", "", err
	}
	<-n.made
	err = n.err
	if err == nil {
		err = n.pin(ctx, dir, uids, gids)
	}
	if err != nil {
		return "", "", errors.Join(fmt.Errorf("make namespaces in %s: %w", dir, err), RemoveNamespaces(dir))
	}
	return userPath, netPath, nil
}

func (n *Namespaces) pin(ctx context.Context, dir, uids, gids string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := n.held.mapIDs(uids, gids); err != nil {
		return err
	}
	for _, pin := range []string{userPin, netPin} {
		if err := pinNamespace(filepath.Join(n.held.proc(), "ns", pin), filepath.Join(dir, pin)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// MakeUserNamespace makes a user namespace with the given maps, which must not
// hold the host's root (errdefs.ErrInvalid). It lives as long as the file.
func MakeUserNamespace(uidMap, gidMap []IDMap) (*os.File, error) {
	for _, list := range [][]IDMap{uidMap, gidMap} {
		if _, err := mapText(list); err != nil {
			return nil, err
		}
	}
	return makeUserNamespace(&idMaps{uidMap, gidMap})
}

// makeUserNamespace makes one that lives as long as the file.
func makeUserNamespace(maps *idMaps) (f *os.File, err error) {
	uids, err := formatMap(maps.uids)
	if err != nil {
		return nil, err
	}
	gids, err := formatMap(maps.gids)
	if err != nil {
		return nil, err
	}
	err = withNamespaces(unix.CLONE_NEWUSER, uids, gids, func(proc string) (err error) {
		f, err = os.Open(filepath.Join(proc, "ns", userPin))
		return err
	})
	return f, err
}

// withNamespaces makes a user namespace with maps and others that belong to
// it, and calls use with the directory in /proc of a process that is in them.
func withNamespaces(flags int, uids, gids string, use func(proc string) error) error {
	h, err := holdNamespaces(nil, flags)
	if err != nil {
		return err
	}
	defer h.release()
	if err := h.mapIDs(uids, gids); err != nil {
		return err
	}
	return use(h.proc())
}

// A namespaceHolder is a process in new namespaces that only waits. It ends
// with the calling process at the latest.
type namespaceHolder struct {
	child  *forked
	status *os.File
}

func holdNamespaces(nursery *Nursery, flags int) (*namespaceHolder, error) {
	if h, held, err := nursery.holdNamespaces(flags); held {
		return h, err
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	prog := namespaceProgram(flags)
	child, status, err := launch(prog, null, nil)
	if err != nil {
		return nil, err
	}
	h := &namespaceHolder{child, status}
	if err := awaitReady(prog, status); err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

// holdNamespaces has one borne, without a program of its own. It reports false
// when it cannot.
func (n *Nursery) holdNamespaces(flags int) (*namespaceHolder, bool, error) {
	ours, theirs, err := linux.SeqpacketPair()
	if err != nil {
		return nil, true, err
	}
	defer func() { _ = theirs.Close() }()
	child, held, err := n.hold(flags, theirs)
	if !held || err != nil {
		return nil, held, errors.Join(err, ours.Close())
	}
	return &namespaceHolder{child, ours}, true, nil
}

func (h *namespaceHolder) proc() string { return fmt.Sprintf("/proc/%d", h.child.pid) }

// open opens the holder's namespace of that name in /proc/PID/ns.
func (h *namespaceHolder) open(name string) (*os.File, error) {
	path := filepath.Join(h.proc(), "ns", name)
	fd, err := linux.OpenFd(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (h *namespaceHolder) mapIDs(uids, gids string) error {
	for _, m := range [][2]string{{"uid_map", uids}, {"gid_map", gids}} {
		if err := writeMap(filepath.Join(h.proc(), m[0]), m[1]); err != nil {
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
				err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalid)
			}
			return err
		}
	}
	return nil
}

func (h *namespaceHolder) release() {
	_ = h.status.Close() // lets the child go
	h.child.kill()
	h.child.wait()
}

// awaitReady reads the one message of a program without a fork.
func awaitReady(prog *Program, status *os.File) error {
	if err := status.SetReadDeadline(time.Now().Add(namespaceLimit)); err != nil {
		return err
	}
	record := make([]byte, recordSize)
	n, err := status.Read(record)
	if err != nil || n != recordSize {
		return fmt.Errorf("set-up process was killed: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint32(record) != recordReady {
		return prog.failure(int(le.Uint32(record[4:])), unix.Errno(le.Uint64(record[8:])))
	}
	return nil
}

// namespaceLimit bounds what takes a millisecond.
const namespaceLimit = time.Minute

// namespaceProgram makes the namespaces, says so, and ends with its socket.
func namespaceProgram(flags int) *Program {
	p := newProgram()
	c := &compiler{Program: p}
	p.call("close on exec", unix.SYS_CLOSE_RANGE, num(statusFD), num(uint64(^uint32(0))), num(unix.CLOSE_RANGE_CLOEXEC))
	p.call("make user namespace", unix.SYS_UNSHARE, num(flags))
	c.waitForRunner()
	return p
}

// waitForRunner says that all is made, and ends when the runner closes its end.
func (c *compiler) waitForRunner() {
	ready, _ := c.record(recordReady, "ready")
	c.call("report ready", unix.SYS_WRITE, num(statusFD), ready, num(recordSize))
	c.call("wait", unix.SYS_READ, num(statusFD), c.buf(make([]byte, 8), "buffer"), num(8))
	c.call("end", unix.SYS_EXIT_GROUP, num(0))
}

// writeMap writes a whole map at once, as user_namespaces(7) demands.
func writeMap(path, text string) error {
	fd, err := linux.OpenFd(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := linux.RetryEINTR(func() (int, error) { return unix.Write(fd, []byte(text)) }); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// pinNamespace mounts the namespace at from onto the file to, which it makes.
func pinNamespace(from, to string) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin %s: %w", to, err)
	}
	return nil
}

// pinned reports whether path is a pinned namespace.
func pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// RemoveNamespaces undoes CreateNamespaces and removes dir if it is empty
// then. The namespaces live on while processes are in them. Absent is nil.
func RemoveNamespaces(dir string) error {
	var errs []error
	for _, pin := range []string{userPin, netPin} {
		errs = append(errs, removePin(filepath.Join(dir, pin)))
	}
	err := os.Remove(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func removePin(path string) error {
	var errs []error
	for pinned(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unpin %s: %w", path, err))
			break
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// mapText is the form of /proc/PID/uid_map of an instance, which never holds
// the host's root.
func mapText(maps []IDMap) (string, error) {
	for _, m := range maps {
		if m.HostID == 0 {
			return "", invalid("id map of the host's root")
		}
	}
	return formatMap(maps)
}

// formatMap is the form of /proc/PID/uid_map.
func formatMap(maps []IDMap) (string, error) {
	if len(maps) == 0 {
		return "", invalid("empty id map")
	}
	var b strings.Builder
	for _, m := range maps {
		if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > maxID || uint64(m.HostID)+uint64(m.Size) > 1<<32-1 {
			return "", invalid("id map %d %d %d", m.ContainerID, m.HostID, m.Size)
		}
		fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return b.String(), nil
}
