package fake

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver"
)

// ConsoleOutput returns the last lines of the console.
func (d *Driver) ConsoleOutput(_ context.Context, uuid driver.InstanceUUID, lines int) ([]byte, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("console of", uuid)
	if err != nil {
		return nil, err
	}
	all := bytes.SplitAfter(i.console, []byte("\n"))
	if n := len(all); n > 0 && len(all[n-1]) == 0 {
		all = all[:n-1]
	}
	if lines >= 0 && lines < len(all) {
		all = all[len(all)-lines:]
	}
	return bytes.Join(all, nil), nil
}

// WriteConsole lets the guest write to its console.
func (d *Driver) WriteConsole(uuid driver.InstanceUUID, text []byte) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if i := d.host.instances[uuid]; i != nil {
		i.say(text)
	}
}

// Diagnostics describes the instance.
func (d *Driver) Diagnostics(_ context.Context, uuid driver.InstanceUUID) (driver.Diagnostics, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("diagnose", uuid)
	if err != nil {
		return driver.Diagnostics{}, err
	}
	out := driver.Diagnostics{
		State: i.state, Uptime: 5 * time.Second, CPUTime: time.Second, NumCPUs: i.request.Flavor.VCPUs,
		MemoryMaxBytes: i.request.Flavor.MemoryMB << 20, MemoryUsed: 1 << 20,
	}
	for _, v := range i.vifs {
		out.NICs = append(out.NICs, driver.NICDiagnostics{MAC: v.Address, RxBytes: 1000, TxBytes: 2000})
	}
	return out, nil
}

// Snapshot opens an image that tells the instance and its boots.
func (d *Driver) Snapshot(ctx context.Context, _ driver.Credentials, uuid driver.InstanceUUID) (driver.SnapshotImage, error) {
	if err := d.pass(ctx, StepCapture); err != nil {
		return driver.SnapshotImage{}, fmt.Errorf("snapshot %s: %w", uuid, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("snapshot", uuid)
	if err != nil {
		return driver.SnapshotImage{}, err
	}
	temp := "snapshot " + string(uuid)
	d.host.residue[temp] = uuid
	body := strings.NewReader(fmt.Sprintf("disk of %s after %d boots", uuid, i.boots))
	return driver.SnapshotImage{
		DiskFormat: "raw", ContainerFormat: "docker", Properties: map[string]string{"os_type": "linux"},
		Content: &content{d: d, ctx: ctx, r: body, temp: temp},
	}, nil
}

// content is the stream of a snapshot; ctx is that of the Snapshot call, as a
// real driver's reader would be bound to it.
type content struct {
	d    *Driver
	ctx  context.Context //nolint:containedctx // a reader has no other way to be cancelled
	r    io.Reader
	temp string
}

func (c *content) Read(p []byte) (int, error) {
	if err := c.d.pass(c.ctx, StepRead); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func (c *content) Close() error {
	c.d.host.mu.Lock()
	defer c.d.host.mu.Unlock()
	delete(c.d.host.residue, c.temp)
	return nil
}

// Events tells of guests that ended by themselves.
func (d *Driver) Events() <-chan driver.LifecycleEvent { return d.events }
