package api

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/transfer"
)

// Backend is what the socket is a way to. Errors carry their class
// (internal/errdefs); methods may be called from any goroutine. The contract of
// each method is that of engine.Engine's.
type Backend interface {
	Containers
	Tuner
	Sessions
	Consoles
	Watcher
	Files
	Images
}

// Containers is their life.
type Containers interface {
	List(ctx context.Context) ([]engine.State, error)
	State(ctx context.Context, id engine.ContainerID) (engine.State, error)
	Create(ctx context.Context, req engine.CreateRequest) error
	Start(ctx context.Context, id engine.ContainerID, req engine.StartRequest) error
	Run(ctx context.Context, req engine.CreateRequest, start engine.StartRequest) error
	Stop(ctx context.Context, id engine.ContainerID, req engine.StopRequest) error
	Kill(ctx context.Context, id engine.ContainerID, sig int) error
	Delete(ctx context.Context, id engine.ContainerID) error
	Wait(ctx context.Context, id engine.ContainerID) (engine.ExitState, error)
	Checkpoint(ctx context.Context, id engine.ContainerID, req engine.CheckpointRequest) error
	Restore(ctx context.Context, id engine.ContainerID, req engine.RestoreRequest) error
}

// Tuner changes what a container may do.
type Tuner interface {
	Pause(ctx context.Context, id engine.ContainerID) error
	Resume(ctx context.Context, id engine.ContainerID) error
	Update(ctx context.Context, id engine.ContainerID, change engine.LimitsChange) (cgroup.Limits, error)
}

// Sessions are commands beside the first process.
type Sessions interface {
	Exec(ctx context.Context, id engine.ContainerID, req engine.ExecRequest) (engine.ExecState, error)
	Execs(ctx context.Context, id engine.ContainerID) ([]engine.ExecState, error)
	ExecWait(ctx context.Context, id engine.ContainerID, exec string) (engine.ExitState, error)
	ExecSignal(ctx context.Context, id engine.ContainerID, exec string, sig int) error
	ExecKill(ctx context.Context, id engine.ContainerID, exec string) error
}

// Consoles are those of first processes.
type Consoles interface {
	Attach(ctx context.Context, id engine.ContainerID, history int) (io.ReadWriteCloser, error)
	Resize(ctx context.Context, id engine.ContainerID, rows, cols uint16) error
}

// Watcher looks.
type Watcher interface {
	Stats(ctx context.Context, id engine.ContainerID) (cgroup.Stats, error)
	WatchStats(ctx context.Context, id engine.ContainerID, interval time.Duration, fn func(engine.Sample) error) error
	Top(ctx context.Context, id engine.ContainerID) ([]engine.ProcessInfo, error)
	Logs(ctx context.Context, id engine.ContainerID, req engine.LogsRequest) (io.ReadCloser, error)
	Subscribe() *engine.Subscription
}

// Files go in and out.
type Files interface {
	CopyOut(ctx context.Context, id engine.ContainerID, req engine.CopyRequest) (io.ReadCloser, error)
	CopyIn(ctx context.Context, id engine.ContainerID, req engine.CopyRequest, r io.Reader) (transfer.Result, error)
	Export(ctx context.Context, id engine.ContainerID) (io.ReadCloser, error)
	Changes(ctx context.Context, id engine.ContainerID) ([]engine.Change, error)
	Commit(ctx context.Context, id engine.ContainerID) (engine.Committed, error)
	CommitDelta(ctx context.Context, id engine.ContainerID) (engine.Committed, error)
	CommitImage(ctx context.Context, id engine.ContainerID, ref string) (engine.ImageInfo, error)
}

// Images are what containers are made of.
type Images interface {
	Image(ctx context.Context, ref string) (engine.ImageInfo, error)
	Images(ctx context.Context) ([]engine.ImageInfo, error)
	Import(ctx context.Context, req engine.ImportRequest) (engine.ImageInfo, error)
	RemoveImage(ctx context.Context, ref string) error
	ExportImage(ctx context.Context, ref string, without ...digest.Digest) (engine.Committed, error)
	History(ctx context.Context, ref string) ([]engine.LayerInfo, error)
	Collect(ctx context.Context, o engine.GCOptions) (engine.GCReport, error)
}

var _ Backend = (*engine.Engine)(nil)
