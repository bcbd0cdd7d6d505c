package daemon

import (
	"context"

	diskjail "github.com/gantry-project/gantry/engine/disk/jail"
	"github.com/gantry-project/gantry/engine/jail"
	layerjail "github.com/gantry-project/gantry/engine/layer/jail"
)

// Unpack is the process that a jail starts; args are its own, and the result is
// what to exit with.
func Unpack(ctx context.Context, args []string) int {
	return jail.Main(ctx, args, append(diskjail.RewriteWorks(), layerjail.Work(), diskjail.Work())...)
}
