package conductor

import (
	"context"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

func (c *Conductor) authorizeConsole(ctx context.Context, in call) (*objects.Object, any, error) {
	ttl := in.number(0, "ttl")
	if ttl <= 0 {
		return nil, nil, builtin("ValueError", "time to live %v", in.arg(0, "ttl"))
	}
	if in.obj.Has("id") {
		return nil, nil, actionFailed("authorize", "must be a new object to authorize")
	}
	o, err := c.o.Store.AuthorizeConsole(ctx, in.obj, time.Duration(ttl)*time.Second)
	if err != nil {
		return nil, nil, err
	}
	return o, o.String("token"), nil
}

func (c *Conductor) validateConsole(ctx context.Context, in call) (any, error) {
	o, err := c.o.Store.Console(ctx, in.text(0, "token"))
	if err != nil {
		return nil, or(err, messaging.NovaError("InvalidToken", 400, "The token '***' is invalid or has expired"))
	}
	return o, nil
}

func (c *Conductor) cleanConsoles(ctx context.Context, in call) (any, error) {
	return nil, c.o.Store.CleanConsoles(ctx, in.text(0, "instance_uuid"))
}

func (c *Conductor) cleanExpiredConsoles(ctx context.Context, _ call) (any, error) {
	return nil, c.o.Store.CleanExpiredConsoles(ctx)
}
