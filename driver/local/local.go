// Package local is the driver that realises instances as containers of this
// host's engine. It is the only place that says both "instance" and
// "container", and where engine, netbridge and glance meet.
//
// An instance's container has the instance's UUID as its id; its image is
// addressed by Glance's id and hash. The namespace of the network comes first
// and the first process last: addresses are in place before anything runs.
// What a restart of an instance needs to know stands in the container's labels,
// so the driver itself keeps no state.
package local

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/glance/cache"
	"github.com/gantry-project/gantry/internal/keylock"
	"github.com/gantry-project/gantry/netbridge"
)

// ImageSource reads images from the image service.
type ImageSource interface {
	// OpenImage streams the image's bytes and verifies size and hash: the
	// reader's last error is errdefs.ErrCorrupt when they differ.
	OpenImage(ctx context.Context, cred driver.Credentials, img driver.Image) (io.ReadCloser, error)
	// StatImage describes an image that can be read. errdefs.ErrNotFound: there
	// is none of this id, it has no data, or the user may not see it.
	StatImage(ctx context.Context, cred driver.Credentials, id string) (driver.Image, error)
}

// SnapshotFormat is what a snapshot becomes in the image service.
type SnapshotFormat string

// The formats. An empty one is SnapshotFull.
const (
	// SnapshotFull is an OCI archive of all layers; it boots wherever its
	// configuration does.
	SnapshotFull SnapshotFormat = "full"
	// SnapshotDelta is an OCI archive of what the instance has written. It boots
	// as long as the image service has the image of the instance.
	SnapshotDelta SnapshotFormat = "delta"
	// SnapshotTar is a tarball of the root file system. It has no configuration:
	// what boots is its init.
	SnapshotTar SnapshotFormat = "tar"
	// SnapshotRaw and SnapshotQCOW2 are the disk image of the instance with its
	// present files, which boots as a machine, and SnapshotFull for an instance
	// of an image that is no disk image.
	SnapshotRaw   SnapshotFormat = "raw"
	SnapshotQCOW2 SnapshotFormat = "qcow2"
)

// Options of the driver. All fields must be set but those with a default.
type Options struct {
	Engine  *engine.Engine
	Network netbridge.Plugger
	Images  ImageSource
	// Node is the hypervisor host name to report.
	Node string
	// StorePath is the directory whose file system holds the instances.
	StorePath string
	// ConsoleBytes bounds each console log (bytes).
	ConsoleBytes int64
	// PidsPerVCPU bounds the processes of an instance.
	PidsPerVCPU int64
	// StartGrace is how long a first process must live for a build to be
	// good, unless it ends with success. 0 does not look.
	StartGrace time.Duration
	// InjectPassword makes the password of a request the one of root, where the
	// image has a place for it.
	InjectPassword bool
	// MoveAddress is HOST:PORT where other hosts reach ServeMoves; empty for a
	// host whose instances do not move to others.
	MoveAddress string
	// SnapshotFormat is what Snapshot makes.
	SnapshotFormat SnapshotFormat
	// Suspend is how guests are put aside.
	Suspend SuspendMode
	// Dedicated are the processors that are given to one instance each, Shared
	// those that the others float over; see ParseProcessors. Without both they
	// float over all.
	Dedicated, Shared []int
	// CrashDumpBytes is what the crash dumps of all instances may take; 0 keeps
	// none.
	CrashDumpBytes int64
	// RefuseImages refuses every image: the operator wants their signatures
	// verified, and nobody does.
	RefuseImages bool
	// OnImage is told of each image that was needed, whether it was here; nil for
	// nobody.
	OnImage func(hit bool)
	Log     zerolog.Logger
}

// Driver implements driver.ComputeDriver, Recoverer, Snapshotter, Pauser,
// PasswordSetter, ConsoleReader, ConsoleStreamer, DiagnosticsReader, EventSource,
// ImageCacher, InterfaceAttacher, Migrator, Rescuer, Suspender,
// CrashDumper and Quiescer.
type Driver struct {
	opts   Options
	images cache.Group[engine.ImageInfo]
	events chan driver.LifecycleEvent
	// plugs is held over changes of an instance's links that nobody else
	// serialises: those of guests that reboot themselves.
	plugs   keylock.Map[driver.InstanceUUID]
	reboots reboots
}

// The abilities that the driver claims in Capabilities.
var (
	_ driver.ComputeDriver     = (*Driver)(nil)
	_ driver.Recoverer         = (*Driver)(nil)
	_ driver.Preparer          = (*Driver)(nil)
	_ driver.Snapshotter       = (*Driver)(nil)
	_ driver.Pauser            = (*Driver)(nil)
	_ driver.ConsoleReader     = (*Driver)(nil)
	_ driver.PasswordSetter    = (*Driver)(nil)
	_ driver.ConsoleStreamer   = (*Driver)(nil)
	_ driver.DiagnosticsReader = (*Driver)(nil)
	_ driver.EventSource       = (*Driver)(nil)
	_ driver.ImageCacher       = (*Driver)(nil)
	_ driver.InterfaceAttacher = (*Driver)(nil)
	_ driver.Migrator          = (*Driver)(nil)
	_ driver.Rescuer           = (*Driver)(nil)
	_ driver.Suspender         = (*Driver)(nil)
	_ driver.CrashDumper       = (*Driver)(nil)
	_ driver.Quiescer          = (*Driver)(nil)
)

// New returns a driver over an open engine. Events are forwarded until ctx ends.
func New(ctx context.Context, opts Options) *Driver {
	d := &Driver{opts: opts, events: make(chan driver.LifecycleEvent, 64)}
	go d.forward(ctx)
	return d
}

// Capabilities of the driver.
func (d *Driver) Capabilities() driver.Capabilities {
	return driver.Capabilities{Recover: true, Snapshot: true, Pause: true, Console: true, Diagnostics: true, Events: true, CacheImages: true, Prepare: true, SetPassword: true, ConsoleStream: true, AttachInterface: true, GuestReboot: true, Resize: true, Migrate: d.opts.MoveAddress != "", ConfigDrive: true, Rescue: true, Suspend: true, CrashDump: true, Quiesce: true, Processors: len(d.opts.Dedicated) > 0}
}

// guest is what a start of an instance needs besides its network. It is kept
// as a label of the container.
type guest struct {
	Hostname   string     `json:"hostname"`
	Args       []string   `json:"args,omitempty"`
	Candidates [][]string `json:"candidates,omitempty"`
	Env        []string   `json:"env,omitempty"`
	Cwd        string     `json:"cwd,omitempty"`
	User       string     `json:"user,omitempty"`
	StopSignal int        `json:"stop_signal,omitempty"`
	// Profile and Nesting are the flavor's wish.
	Profile  engine.Profile `json:"profile,omitempty"`
	Nesting  bool           `json:"nesting,omitempty"`
	VCPUs    int64          `json:"vcpus"`
	MemoryMB int64          `json:"memory_mb"`
	Image    string         `json:"image"`
	// Traffic is what each interface may carry.
	Traffic netbridge.Limits `json:"traffic,omitzero"`
	// Drive: it has a config drive.
	Drive bool `json:"drive,omitempty"`
	// Own is set while this is a rescue system: what the instance runs itself.
	Own *guest `json:"own,omitempty"`
	// Suspended says that a start was, or was to be, put aside.
	Suspended *suspension `json:"suspended,omitempty"`
	// Arrived: it came from another host, whole, and may never have run here.
	Arrived bool `json:"arrived,omitempty"`
	// Processors are its own; see driver.Flavor.
	Processors []int `json:"processors,omitempty"`
}

const guestLabel = "gantry.guest"

// Owns reports whether a container with these labels is an instance of this
// driver or a part of one, and not something that an operator has made.
func Owns(labels map[string]string) bool {
	return labels[guestLabel] != "" || labels[rescueLabel] != ""
}

func (g guest) labels() (map[string]string, error) {
	raw, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("record guest: %w", err)
	}
	return map[string]string{guestLabel: string(raw)}, nil
}

func guestOf(s engine.State) (guest, error) {
	var g guest
	if err := json.Unmarshal([]byte(s.Labels[guestLabel]), &g); err != nil {
		return g, fmt.Errorf("read guest of %s: %w", s.ID, err)
	}
	return g, nil
}

func container(uuid driver.InstanceUUID) engine.ContainerID { return engine.ContainerID(uuid) }
