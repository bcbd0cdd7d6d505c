package local

import (
	"context"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
)

// consoleHistory is what a console begins with (bytes): some screens.
const consoleHistory = 16 << 10

// OpenConsole implements driver.ConsoleStreamer. Every instance has a terminal
// for a console, whatever its image says of one: it is what a server has.
func (d *Driver) OpenConsole(ctx context.Context, uuid driver.InstanceUUID) (driver.ConsoleStream, error) {
	conn, err := d.opts.Engine.Attach(ctx, container(uuid), consoleHistory)
	if err != nil {
		return nil, fmt.Errorf("open console of %s: %w", uuid, err)
	}
	return &console{ReadWriteCloser: conn, engine: d.opts.Engine, id: container(uuid)}, nil
}

// console implements driver.ConsoleStream.
type console struct {
	io.ReadWriteCloser
	engine *engine.Engine
	id     engine.ContainerID
}

// Resize implements driver.ConsoleStream.
func (c *console) Resize(ctx context.Context, rows, cols uint16) error {
	return c.engine.Resize(ctx, c.id, rows, cols)
}
