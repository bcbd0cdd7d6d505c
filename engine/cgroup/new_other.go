//go:build !linux

package cgroup

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Options of New.
type Options struct {
	Name, MountInfo, Membership string
}

// New fails: only Linux has control groups.
func New(context.Context, Options) (Tree, error) {
	return nil, fmt.Errorf("open control groups: %w", errdefs.ErrUnsupported)
}
