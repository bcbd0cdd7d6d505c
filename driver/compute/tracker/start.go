package tracker

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Identify settles which node this is. It reads the identity file, the control
// plane and the driver, and writes nothing but a missing file. previous is the
// version that the service record of this host had, 0 for a host without one.
//
// errdefs.ErrConflict is for the operator: the host is not what the control
// plane knows, and must not start.
func (t *Tracker) Identify(ctx context.Context, previous int) error {
	r, err := t.deps.Driver.Resources(ctx)
	if err != nil {
		return fmt.Errorf("identify node: %w", err)
	}
	if r.Node == "" {
		return fmt.Errorf("identify node: driver reports no node name: %w", errdefs.ErrInvalid)
	}
	e, err := t.evidence(ctx, r.Node, previous)
	if err != nil {
		return fmt.Errorf("identify node %s: %w", r.Node, err)
	}
	id, write, err := identify(e)
	if err != nil {
		return err
	}
	if id == "" {
		id = uuid.NewString()
	}
	if write {
		if err := writeIdentity(t.opts.StatePath, id); err != nil {
			return err
		}
		t.log.Info().Str(logging.Node, r.Node).Str("uuid", id).Bool("adopted", e.byName != nil).Msg("node identity written")
	}
	t.mu.Lock()
	t.id, t.resources = id, r
	t.mu.Unlock()
	release, err := hold(ctx, t.writing)
	if err != nil {
		return err
	}
	defer release()
	t.row = e.byName
	if t.row == nil {
		t.row = e.byFile
	}
	if t.row != nil {
		t.row.ResetChanges()
	}
	return nil
}

// evidence collects what identify judges.
func (t *Tracker) evidence(ctx context.Context, node string, previous int) (evidence, error) {
	e := evidence{host: t.opts.Host, node: node, previous: previous}
	var err error
	if e.file, err = readIdentity(t.opts.StatePath); err != nil {
		return e, err
	}
	rc := messaging.AdminContext()
	if e.byName, err = found(t.deps.Conductor.GetComputeNode(ctx, rc, t.opts.Host, node)); err != nil {
		return e, fmt.Errorf("look up compute node: %w", err)
	}
	if e.byName == nil && e.file != "" {
		if e.byFile, err = found(t.nodeByUUID(ctx, rc, e.file)); err != nil {
			return e, fmt.Errorf("look up compute node %s: %w", e.file, err)
		}
	}
	guests, err := t.deps.Driver.Instances(ctx)
	if err != nil {
		return e, fmt.Errorf("list guests: %w", err)
	}
	e.guests = len(guests)
	return e, nil
}

// nodeByUUID is ComputeNode.get_by_uuid.
func (t *Tracker) nodeByUUID(ctx context.Context, rc messaging.RequestContext, id string) (*objects.Object, error) {
	var node objects.ComputeNode
	err := t.deps.Conductor.ClassAction(ctx, rc, "ComputeNode", "get_by_uuid", []any{id}, nil, &node)
	return node.Object, err
}

// found turns the answer that there is no such record into nil.
func found(node *objects.Object, err error) (*objects.Object, error) {
	if messaging.IsRemote(err, "ComputeHostNotFound") || errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	return node, err
}

// Init makes the compute node record if there is none and surveys the host for
// the first time. The service record must exist. It may be repeated after a
// failure.
func (t *Tracker) Init(ctx context.Context) error {
	if t.NodeUUID() == "" {
		return fmt.Errorf("init tracker: Identify has not succeeded: %w", errdefs.ErrConflict)
	}
	if err := t.ensureNode(ctx); err != nil {
		return err
	}
	return t.UpdateAvailableResource(ctx)
}

// ensureNode creates the record. A lost reply is harmless: the next try finds
// the row by its UUID.
func (t *Tracker) ensureNode(ctx context.Context) error {
	release, err := hold(ctx, t.writing)
	if err != nil {
		return err
	}
	defer release()
	if t.row != nil {
		return nil
	}
	rc := messaging.AdminContext()
	s, id := t.view(), t.NodeUUID()
	row, err := found(t.deps.Conductor.GetComputeNode(ctx, rc, t.opts.Host, s.resources.Node))
	if err != nil {
		return fmt.Errorf("look up compute node %s: %w", id, err)
	}
	if row == nil {
		row = objects.NewComputeNode(id, t.opts.Host, s.resources.Node).Wire()
		for field, value := range nodeFields(t.opts, s, true) {
			row.Set(field, value)
		}
		if err := t.deps.Conductor.CreateComputeNode(ctx, rc, row); err != nil {
			return fmt.Errorf("create compute node %s: %w", id, err)
		}
		t.log.Info().Str(logging.Node, s.resources.Node).Str("uuid", id).Msg("compute node record created")
	}
	row.ResetChanges()
	t.row = row
	return nil
}
