package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/local/courier"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// A move between two hosts (docs/migration.md). The host that the instance goes
// to makes a key and tells the public half (ExpectMigration); the host that has
// it makes another, stops the guest and offers its disk to the first key
// (offer); the answer tells where, and the public half. The first one fetches
// what was written over the image, which it has itself or gets from the image
// service (receive). Both keep their half of that in a file, so that each may be
// restarted meanwhile.
//
// directory: STORE/migrations, UUID.in and UUID.out

// expectation is what is known of an instance that is to come.
type expectation struct {
	Own courier.Key `json:"own"`
}

// offered is what is known of an instance that may go.
type offered struct {
	Own  courier.Key       `json:"own"`
	Peer courier.PublicKey `json:"peer"`
}

// diskInfo tells the other host where a disk is, in Nova's disk_info.
type diskInfo struct {
	Version int               `json:"version"`
	Address string            `json:"address"`
	Key     courier.PublicKey `json:"key"`
	// Image is the reference of what is below the disk.
	Image string `json:"image"`
	Guest guest  `json:"guest"`
}

const (
	diskInfoVersion = 1
	// The streams of an offer: what was written over the image, the config
	// drive, and the image itself for who cannot have it elsewhere.
	diskStream, driveStream, imageStream = "disk", "drive", "image"
	// expectationAge is after how long an instance does not come any more.
	expectationAge = 24 * time.Hour
)

func (d *Driver) moves() string { return filepath.Join(d.opts.StorePath, "migrations") }

func (d *Driver) expectationFile(uuid driver.InstanceUUID) string {
	return filepath.Join(d.moves(), string(uuid)+".in")
}

func (d *Driver) offerFile(uuid driver.InstanceUUID) string {
	return filepath.Join(d.moves(), string(uuid)+".out")
}

func (d *Driver) keepMove(file string, v any) error {
	raw, err := json.Marshal(v)
	if err == nil {
		err = os.MkdirAll(d.moves(), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(file, raw, 0o600)
	}
	return err
}

// readMove is errdefs.ErrNotFound where there is no such file.
func readMove(file string, v any) error {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("read %s: %w: %w", file, errdefs.ErrCorrupt, err)
	}
	return nil
}

func removeMove(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget a move: %w", err)
	}
	return nil
}

// forgetMoves forgets all of the moves of an instance.
func (d *Driver) forgetMoves(uuid driver.InstanceUUID) error {
	return errors.Join(removeMove(d.expectationFile(uuid)), d.withdraw(uuid))
}

// withdraw ends the offer of an instance's disk.
func (d *Driver) withdraw(uuid driver.InstanceUUID) error { return removeMove(d.offerFile(uuid)) }

// sweepMoves forgets instances that have not come, and offers of instances that
// are not here by what gone says of their ids.
func (d *Driver) sweepMoves(gone func(id string) bool) error {
	entries, err := os.ReadDir(d.moves())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list moves: %w", err)
	}
	for _, e := range entries {
		id, offer := strings.CutSuffix(e.Name(), ".out")
		info, err := e.Info()
		if err != nil || offer && !gone(id) || !offer && time.Since(info.ModTime()) < expectationAge {
			continue
		}
		if err := removeMove(filepath.Join(d.moves(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// ServeMoves gives the disks of instances that move to the hosts that they move
// to, until ctx ends. l listens at Options.MoveAddress and is closed.
func (d *Driver) ServeMoves(ctx context.Context, l net.Listener) error {
	return courier.NewServer(d.offerOf, d.opts.Log).Serve(ctx, l)
}

// offerOf finds what is offered of the instance called name, which a stranger
// may have chosen.
func (d *Driver) offerOf(_ context.Context, name string) (courier.Offer, error) {
	id := driver.InstanceUUID(name)
	var o offered
	if err := uuid.Validate(name); err != nil || len(name) != 36 {
		return courier.Offer{}, fmt.Errorf("offer of %.64q: %w", name, errdefs.ErrNotFound)
	}
	if err := readMove(d.offerFile(id), &o); err != nil {
		return courier.Offer{}, fmt.Errorf("offer of %s: %w", name, err)
	}
	return courier.Offer{Own: o.Own, Peer: o.Peer, Open: func(ctx context.Context, what string) (io.ReadCloser, error) {
		return d.openStream(ctx, id, what)
	}}, nil
}

func (d *Driver) openStream(ctx context.Context, id driver.InstanceUUID, what string) (io.ReadCloser, error) {
	switch what {
	case diskStream:
		return d.opts.Engine.Written(ctx, container(id))
	case driveStream:
		f, err := os.Open(d.driveFile(id))
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
		}
		return f, err
	case imageStream:
		s, err := d.opts.Engine.State(ctx, container(id))
		if err != nil {
			return nil, err
		}
		out, err := d.opts.Engine.ExportImage(ctx, s.Image)
		return out.Content, err
	}
	return nil, fmt.Errorf("stream %.32q: %w", what, errdefs.ErrNotFound)
}

// ExpectMigration implements driver.Migrator. A new key is made each time: it is
// of one move.
func (d *Driver) ExpectMigration(_ context.Context, uuid driver.InstanceUUID) (string, error) {
	if d.opts.MoveAddress == "" {
		return "", fmt.Errorf("expect %s: %w", uuid, errdefs.ErrUnsupported)
	}
	if err := d.sweepMoves(func(string) bool { return false }); err != nil {
		return "", fmt.Errorf("expect %s: %w", uuid, err)
	}
	key, err := courier.NewKey()
	if err == nil {
		err = d.keepMove(d.expectationFile(uuid), expectation{key})
	}
	if err != nil {
		return "", fmt.Errorf("expect %s: %w", uuid, err)
	}
	return key.Public().String(), nil
}

// offer stops the guest and offers its disk to the peer.
func (d *Driver) offer(ctx context.Context, req driver.MigrateRequest, s engine.State, g guest) (_ string, err error) {
	if d.opts.MoveAddress == "" {
		return "", fmt.Errorf("offer %s: %w", req.UUID, errdefs.ErrUnsupported)
	}
	if g.Own != nil {
		return "", fmt.Errorf("offer %s, which is being rescued: %w", req.UUID, errdefs.ErrConflict)
	}
	peer, err := courier.ParsePublicKey(req.Peer)
	if err != nil {
		return "", fmt.Errorf("offer %s to its next host: %w", req.UUID, err)
	}
	key, err := courier.NewKey()
	if err == nil {
		err = d.keepMove(d.offerFile(req.UUID), offered{key, peer})
	}
	if err != nil {
		return "", fmt.Errorf("offer %s: %w", req.UUID, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.withdraw(req.UUID))
		}
	}()
	info, err := json.Marshal(diskInfo{Version: diskInfoVersion, Address: d.opts.MoveAddress, Key: key.Public(), Image: s.Image, Guest: g})
	if err != nil {
		return "", fmt.Errorf("offer %s: %w", req.UUID, err)
	}
	if err := d.PowerOff(ctx, req.UUID, req.Off); err != nil {
		return "", fmt.Errorf("offer %s: %w", req.UUID, err)
	}
	// the other host has the addresses from now on
	if err := d.unplug(ctx, req.UUID); err != nil {
		return "", fmt.Errorf("offer %s: %w", req.UUID, err)
	}
	return string(info), failpoint.Hit("move.offered")
}
