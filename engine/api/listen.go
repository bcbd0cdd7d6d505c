package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// SocketName is the name of the socket in an engine's root.
const SocketName = "engine.sock"

// maxSocketPath is what sun_path of unix(7) holds.
const maxSocketPath = 107

// Listen makes the socket. Its directory is made with mode 0700 if absent, and
// refused if others than its owner may enter it (errdefs.ErrForbidden). A
// socket that nobody serves any more is replaced; one that answers is
// errdefs.ErrAlreadyExists. Closing the listener removes it.
func Listen(socket string) (*net.UnixListener, error) {
	if len(socket) > maxSocketPath || !filepath.IsAbs(socket) {
		return nil, fmt.Errorf("socket %q: not an absolute path of at most %d bytes: %w", socket, maxSocketPath, errdefs.ErrInvalid)
	}
	if err := privateDir(filepath.Dir(socket)); err != nil {
		return nil, fmt.Errorf("socket %s: %w", socket, err)
	}
	if conn, err := net.Dial("unix", socket); err == nil { //nolint:noctx // a unix socket answers at once
		_ = conn.Close()
		return nil, fmt.Errorf("socket %s: another process serves it: %w", socket, errdefs.ErrAlreadyExists)
	}
	if err := removeSocket(socket); err != nil {
		return nil, fmt.Errorf("socket %s: %w", socket, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", socket, err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("socket %s: %w", socket, err), l.Close())
	}
	return l, nil
}

func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	if st.Mode&0o077 != 0 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("directory %s: others may enter it (mode %o, owner %d): %w", dir, st.Mode&0o777, st.Uid, errdefs.ErrForbidden)
	}
	return nil
}

// removeSocket removes what a killed server has left, and nothing else.
func removeSocket(name string) error {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is something else: %w", errdefs.ErrConflict)
	}
	return os.Remove(name)
}

// peerKey is the context key of a connection's peer.
type peerKey struct{}

// withPeer notes who is at the other end.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cred)
}

// admit lets root and the server's own user in.
func admit(ctx context.Context) error {
	cred, ok := ctx.Value(peerKey{}).(*unix.Ucred)
	if !ok {
		return fmt.Errorf("the peer is not known: %w", errdefs.ErrForbidden)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not use this socket: %w", cred.Uid, errdefs.ErrForbidden)
	}
	return nil
}
