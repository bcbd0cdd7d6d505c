package devcloud

import (
	"context"
	"fmt"
	"strconv"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/devcloud/consoles"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// ConsoleURLs are where users find consoles, for the compute service.
func (c *Cloud) ConsoleURLs() (vnc, serial string) {
	return c.o.URL + consoles.VNCPage, "ws" + c.o.URL[len("http"):] + consoles.SerialPath
}

// console says where a token leads. As a proxy beside Nova does, it asks the host
// whether the port is still that of the instance
// (nova/console/websocketproxy.py, _get_connect_info).
func (c *Cloud) console(ctx context.Context, token string) (consoles.Target, error) {
	o, err := c.cell.Console(ctx, token)
	if err != nil {
		return consoles.Target{}, err
	}
	t := consoles.Target{
		Kind: o.String("console_type"), Instance: o.String("instance_uuid"), Host: o.String("host"), Port: int(o.Int("port")),
	}
	i, err := c.cell.Instance(ctx, t.Instance)
	if err != nil {
		return t, err
	}
	var valid bool
	err = c.rpc.Call(ctx, messaging.AdminContext(), messaging.Target{Topic: "compute", Server: i.Host(), Version: "6.0"}, "validate_console_port",
		map[string]any{"instance": i, "port": strconv.Itoa(t.Port), "console_type": t.Kind}, &valid)
	if err == nil && !valid {
		err = fmt.Errorf("console of %s at port %d: %w", t.Instance, t.Port, errdefs.ErrNotFound)
	}
	return t, err
}
