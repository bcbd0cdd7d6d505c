package conductor

import (
	"context"

	"github.com/gantry-project/gantry/driver/messaging"
)

func (c *Conductor) build(context.Context, messaging.RequestContext, BuildRequest) {}

func (c *Conductor) deleteLocally(context.Context, messaging.RequestContext, string) error {
	return nil
}
