//go:build !linux

package netbridge

import (
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Options of New.
type Options struct {
	// HostNetNS is the path of the namespace that holds host ends and bridges.
	HostNetNS string
}

// New returns a Plugger that can do nothing on this operating system.
func New(Options) Plugger { return &plugger{kernel: noKernel{}} }

type noKernel struct{}

func (noKernel) open(string) (session, error) { return nil, unsupported() }
func (noKernel) owned() ([]hostLink, error)   { return nil, unsupported() }
func (noKernel) stats(string) (string, Stats, error) {
	return "", Stats{}, unsupported()
}

func unsupported() error { return fmt.Errorf("network of instances: %w", errdefs.ErrUnsupported) }
