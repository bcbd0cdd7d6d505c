package jail

import (
	"context"
	"os"
)

// ProbeMain is Main, but the child tells what probe says instead of unpacking.
func ProbeMain(ctx context.Context, args []string, probe func(target *os.File) string) int {
	return mainOf(ctx, args, func(_ context.Context, _ request, target *os.File) reply {
		return reply{Text: "probe: " + probe(target)}
	})
}
