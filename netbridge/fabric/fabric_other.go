//go:build !linux

package fabric

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Fabric can do nothing on this operating system.
type Fabric struct{}

// New returns a Fabric that refuses everything.
func New(Options) *Fabric { return &Fabric{} }

func unsupported() error { return fmt.Errorf("networks of the host: %w", errdefs.ErrUnsupported) }

// SetNetwork refuses.
func (*Fabric) SetNetwork(context.Context, Network) error { return unsupported() }

// SetRouter refuses.
func (*Fabric) SetRouter(context.Context, Router) error { return unsupported() }

// SetGroup refuses.
func (*Fabric) SetGroup(context.Context, Group) error { return unsupported() }

// SetPorts refuses.
func (*Fabric) SetPorts(context.Context, ...Port) error { return unsupported() }

// Sync refuses.
func (*Fabric) Sync(context.Context, World) error { return unsupported() }

// Repair refuses.
func (*Fabric) Repair(context.Context) error { return unsupported() }

// Watch refuses.
func (*Fabric) Watch(context.Context, func([]string), func(string, bool)) error { return unsupported() }

// Close has nothing to end.
func (*Fabric) Close(context.Context) error { return nil }
