//go:build !linux

package ovs

import (
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

type noLinks struct{}

func newLinks(string) links { return noLinks{} }

func (noLinks) ensure(string, string, int) error {
	return fmt.Errorf("hybrid port: %w", errdefs.ErrUnsupported)
}

func (noLinks) software(string, string) error {
	return fmt.Errorf("switch in user space: %w", errdefs.ErrUnsupported)
}
func (noLinks) remove(string, string) error { return nil }
