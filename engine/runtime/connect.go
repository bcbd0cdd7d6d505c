package runtime

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// dial connects to a listening unix socket.
func dial(path string) (*os.File, error) {
	if path == "" {
		return nil, fmt.Errorf("empty path: %w", errdefs.ErrInvalid)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: abs, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalid)
	}
	defer func() { _ = c.Close() }()
	return c.File()
}

// console connects the terminal's socket. A caller that relays the terminal
// itself needs none.
func (b *birth) console(relayed bool) error {
	f, err := consoleSocket(b.conf.Process.Terminal, relayed, b.req.ConsoleSocket)
	if err != nil || f == nil {
		return err
	}
	b.files = append(b.files, f)
	b.conf.Process.ConsoleSocket = f
	return nil
}

func consoleSocket(terminal, relayed bool, path string) (*os.File, error) {
	switch {
	case terminal && path == "" && !relayed:
		return nil, fmt.Errorf("cannot allocate tty if detached without setting console socket: %w", errdefs.ErrInvalid)
	case !terminal && path != "":
		return nil, fmt.Errorf("cannot use console socket if process has no terminal: %w", errdefs.ErrInvalid)
	case path == "":
		return nil, nil
	}
	f, err := dial(path)
	if err != nil {
		return nil, fmt.Errorf("connect to console socket: %w", err)
	}
	return f, nil
}

// listenerState is the message for a listener of the system call filter
// (config-linux.md, The Container Process State). The pid is filled in by the
// runner, which alone knows it in time: see process.Spec.
func (b *birth) listenerState() ([]byte, error) {
	return listenerState(b.conf.ListenerMetadata, specs.State{
		Version: oci.Version(), ID: b.rec.ID, Status: Creating, Bundle: b.rec.Bundle, Annotations: b.rec.Annotations,
	})
}

func listenerState(metadata string, state specs.State) ([]byte, error) {
	return json.Marshal(specs.ContainerProcessState{
		Version: oci.Version(), Fds: []string{specs.SeccompFdName}, Pid: state.Pid, Metadata: metadata, State: state,
	})
}
