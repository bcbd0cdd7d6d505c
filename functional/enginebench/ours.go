package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/keeper"
	"github.com/gantry-project/gantry/engine/seccomp"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/linux"
)

// ours is gantry twice: the service as a process of its own, asked through its
// socket, and the same engine opened here, asked by calls, for what happens
// inside of the service. Both have their keeper.
type ours struct {
	service *exec.Cmd
	client  *api.Client
	root    string

	engine *engine.Engine
	closes []func()
}

// groupName is below which all containers of this program have their groups.
const groupName = "gantry-bench"

// limits are those of the peers' bundles.
func limits() cgroup.Limits {
	return cgroup.Limits{MemoryBytes: 256 << 20, Pids: 512, CPUShares: 512}
}

func startOurs(ctx context.Context, s settings, log *os.File) (*ours, error) {
	image := filepath.Join(s.work, "bb.tar")
	o := &ours{root: filepath.Join(s.work, "service")}
	o.service = exec.Command(s.gantry, "engine", "--store-path", o.root, "--cgroup", groupName+"-service")
	o.service.Stdout, o.service.Stderr = log, log
	if err := o.service.Start(); err != nil {
		return nil, fmt.Errorf("start the service: %w", err)
	}
	o.client = api.NewClient(filepath.Join(o.root, api.SocketName))
	if err := o.await(ctx); err != nil {
		return o, err
	}
	f, err := os.Open(image)
	if err != nil {
		return o, err
	}
	defer f.Close()
	if _, err := o.client.Import(ctx, api.Import{Ref: peerImage, ContainerFormat: "bare", DiskFormat: "raw"}, f); err != nil {
		return o, fmt.Errorf("import the image: %w", err)
	}
	if err := o.open(ctx, s); err != nil {
		return o, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return o, err
	}
	_, err = o.engine.Import(ctx, engine.ImportRequest{Ref: peerImage, Content: f, ContainerFormat: "bare", DiskFormat: "raw"})
	return o, err
}

// await returns when the service answers.
func (o *ours) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := o.client.Info(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the service does not answer: %w", err)
		case <-tick.C:
		}
	}
}

// open opens an engine in this process, composed as the service does it.
func (o *ours) open(ctx context.Context, s settings) error {
	if err := linux.CalmMonitor(); err != nil {
		return err
	}
	root := filepath.Join(s.work, "inside")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	db, err := store.Open(filepath.Join(root, "gantry.db"))
	if err != nil {
		return err
	}
	o.closes = append(o.closes, func() { _ = db.Close() })
	disks, err := overlay.New(filepath.Join(root, "snapshots"))
	if err != nil {
		return err
	}
	o.closes = append(o.closes, disks.Close)
	groups, err := cgroup.New(ctx, cgroup.Options{Name: groupName + "-inside"})
	if err != nil {
		return err
	}
	socket := filepath.Join(root, "keeper.sock")
	runner, err := keeper.Ensure(ctx, keeper.Options{
		Socket: socket, Command: []string{s.gantry, "keeper", "--socket", socket}, LogFile: filepath.Join(root, "keeper.log"),
	})
	if err != nil {
		return err
	}
	o.closes = append(o.closes, func() { _ = runner.Close() })
	boot, err := linux.BootID()
	if err != nil {
		return err
	}
	journal, err := store.OpenLog(filepath.Join(root, "journal"), boot)
	if err != nil {
		return err
	}
	o.closes = append(o.closes, func() { _ = journal.Close() })
	o.engine, err = engine.Open(ctx, engine.Options{
		Root: root, Runner: runner, Cgroups: groups, Snapshots: disks, Store: db, Journal: journal, Log: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	o.closes = append(o.closes, o.engine.Close)
	go func() { // nobody else reads them; ends with the program
		for range o.engine.Events() {
			continue
		}
	}()
	return nil
}

// stop ends the service; its containers have been removed by who made them.
func (o *ours) stop() {
	if o == nil {
		return
	}
	for i := len(o.closes) - 1; i >= 0; i-- {
		o.closes[i]()
	}
	if o.service != nil && o.service.Process != nil {
		_ = o.service.Process.Signal(os.Interrupt)
		_ = o.service.Wait()
	}
}

// sleeper is what idle containers run.
func sleeper() engine.StartRequest {
	return engine.StartRequest{Args: []string{"/bin/sleep", "1000000"}, Env: []string{"PATH=/bin"}, NoNewPrivs: true}
}

// begin creates and starts a container inside.
func (o *ours) begin(ctx context.Context, id string, start engine.StartRequest) error {
	return o.engine.Run(ctx, engine.CreateRequest{ID: engine.ContainerID(id), Image: peerImage, Limits: limits()}, start)
}

// ask creates and starts a container by one request to the service.
func (o *ours) ask(ctx context.Context, id string, args ...string) error {
	memory, pids, shares := int64(256<<20), int64(512), int64(512)
	_, err := o.client.Create(ctx, api.Create{
		ID: id, Image: peerImage, Limits: api.Limits{MemoryBytes: &memory, Pids: &pids, CPUShares: &shares},
		Start: &api.Start{Args: args, NoNewPrivs: true},
	})
	return err
}

func (o *ours) remove(ctx context.Context, id string) error {
	return o.client.Remove(ctx, id, true, api.Change{})
}

// writeFilter writes the default profile's filter for floor.c.
func writeFilter(path string) error {
	profile, err := seccomp.Default(nil)
	if err != nil {
		return err
	}
	code, err := seccomp.Compile(profile, seccomp.Arch(runtime.GOARCH))
	if err != nil {
		return err
	}
	if len(code) == 0 {
		return errors.New("empty filter")
	}
	var out []byte
	for _, in := range code {
		out = binary.NativeEndian.AppendUint16(out, in.Code)
		out = append(out, in.JT, in.JF)
		out = binary.NativeEndian.AppendUint32(out, in.K)
	}
	return os.WriteFile(path, out, 0o600)
}
