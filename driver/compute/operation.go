package compute

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// wrap is a set of what surrounds a method, Nova's decorators.
type wrap uint8

const (
	// wrapX: an exception is told in an error notification (wrap_exception).
	wrapX wrap = 1 << iota
	// wrapR: an exception clears the task state (reverts_task_state).
	wrapR
	// wrapE: an instance action event surrounds it (wrap_instance_event).
	wrapE
	// wrapF: an exception becomes a fault (wrap_instance_fault).
	wrapF
	// wrapM: an exception sets the migration to error (errors_out_migration).
	wrapM
	// wrapLock: it holds the lock of the instance.
	wrapLock
	// wrapAnyHost: the instance may belong to another host.
	wrapAnyHost
	// wrapHost: a method of the host, without an instance.
	wrapHost
)

// wrapXREF surrounds most verbs.
const wrapXREF = wrapX | wrapR | wrapE | wrapF

// handler does what a method is for. Handlers are methods of Manager, named in
// the table of methods.go.
type handler func(m *Manager, ctx context.Context, o *op) (any, error)

// op is one operation: a message, or work that the manager does by itself.
type op struct {
	name string
	rc   messaging.RequestContext
	// inst is the instance, nil for methods of the host.
	inst *objects.Object
	// req is the message, nil for work that nobody sent.
	req *messaging.Request
	// mig is the migration of work that nobody sent.
	mig *objects.Object
	log zerolog.Logger
}

func (o *op) uuid() string { return o.inst.String("uuid") }

// arg decodes an argument of the message; an absent one leaves v as it is.
func (o *op) arg(name string, v any) error {
	if o.req == nil {
		return nil
	}
	if err := o.req.Arg(name, v); err != nil {
		return fmt.Errorf("argument %s of %s: %w: %w", name, o.name, errdefs.ErrInvalid, err)
	}
	return nil
}

// own returns an operation that the manager starts by itself.
func (m *Manager) own(rc messaging.RequestContext, name string, inst *objects.Object) *op {
	return &op{name: name, rc: rc, inst: inst, log: m.instanceLog(rc, inst).With().Str(logging.Method, name).Logger()}
}

// perform runs one operation inside its wraps, in Nova's order outside-in:
// X, R, E, M, F. The error that it returns has been told to Nova.
func (m *Manager) perform(ctx context.Context, w wrap, o *op, run handler) (res any, err error) {
	began := time.Now()
	done := m.running.begin(o)
	defer func() { done(); m.observe(o.name, err, time.Since(began)) }()
	finish, err := m.startEvent(ctx, w, o)
	if err == nil {
		res, err = m.locked(ctx, w, o, run)
	}
	if err != nil && ctx.Err() != nil {
		// The message's own context ended, so the service does. As after a
		// kill the task state stays for the recovery of the next start, which
		// runs the operation again.
		o.log.Warn().Err(err).Msg("operation cut off by the end of the service")
		return nil, err
	}
	m.afterwards(ctx, w, o, err, finish)
	if err != nil {
		m.logFailure(o, err)
		return nil, err
	}
	level := zerolog.DebugLevel
	if w&wrapE != 0 {
		level = zerolog.InfoLevel
	}
	o.log.WithLevel(level).Dur(logging.Took, time.Since(began)).Msg("operation done")
	return res, nil
}

// locked runs fn under the lock if asked, and makes a panic an error.
func (m *Manager) locked(ctx context.Context, w wrap, o *op, run handler) (res any, err error) {
	if w&wrapLock != 0 {
		unlock, err := m.locks.Lock(ctx, o.uuid())
		if err != nil {
			return nil, fmt.Errorf("lock instance %s: %w", o.uuid(), err)
		}
		defer unlock()
	}
	defer guard(&err)
	return run(m, ctx, o)
}

// guard turns a panic of foreign input into an error of the operation.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// startEvent opens the action event. An operation whose action is not found
// goes on without: the event is a record and not a permission.
func (m *Manager) startEvent(ctx context.Context, w wrap, o *op) (finish bool, err error) {
	if w&wrapE == 0 {
		return false, nil
	}
	err = m.dep.Conductor.EventStart(ctx, o.rc, o.uuid(), "compute_"+o.name)
	if messaging.IsRemote(err, "InstanceActionNotFound") {
		o.log.Warn().Err(err).Msg("no instance action for the operation")
		return false, nil
	}
	return err == nil, err
}

// afterwards tells Nova how the operation ended. What fails here is logged:
// the operation's own error is the one that counts.
func (m *Manager) afterwards(ctx context.Context, w wrap, o *op, err error, event bool) {
	ctx = context.WithoutCancel(ctx)
	quiet := err == nil || gone(err)
	check := func(what string, e error) {
		if e != nil {
			o.log.Warn().Err(e).Str(logging.Step, what).Msg("could not tell Nova")
		}
	}
	if w&wrapF != 0 && !quiet {
		check("fault", m.fault(ctx, o.rc, o.uuid(), err))
	}
	if w&wrapM != 0 && !quiet && !messaging.IsRemote(err, "UnexpectedTaskStateError") {
		check("migration", m.failMigration(ctx, o))
	}
	if event {
		failure, trace := "", ""
		if err != nil {
			failure, trace = tenantText(err), translate(err).Class+": "+tenantText(err)
		}
		check("event", m.dep.Conductor.EventFinish(ctx, o.rc, o.uuid(), "compute_"+o.name, failure, trace))
	}
	if w&wrapR != 0 && !quiet && !messaging.IsRemote(err, "UnexpectedTaskStateError") {
		check("task state", m.revertTask(ctx, o))
	}
	if w&wrapX != 0 && err != nil {
		m.notifyException(ctx, o, err)
	}
}

func (m *Manager) logFailure(o *op, err error) {
	level := zerolog.ErrorLevel
	if outcome(err) == OutcomeRefused {
		level = zerolog.InfoLevel
	}
	o.log.WithLevel(level).Err(err).Msg("operation refused or failed")
}

// fault stores an InstanceFault. The details, which hold the whole story, go
// with code 500 only: Nova shows those to administrators alone.
func (m *Manager) fault(ctx context.Context, rc messaging.RequestContext, uuid string, err error) error {
	code, details := translate(err).Code, ""
	if code == 0 || code == 500 {
		code, details = 500, clip(err.Error(), 16<<10)
	}
	return m.dep.Conductor.CreateFault(ctx, rc, uuid, code, clip(tenantText(err), faultLimit), details)
}

// revertTask clears the task, unless somebody else has set another meanwhile:
// a delete must not lose its task to an operation that it overtook.
func (m *Manager) revertTask(ctx context.Context, o *op) error {
	if o.inst.IsNull("task_state") {
		return nil
	}
	row := o.inst.Sparse("id", "uuid")
	row.ResetChanges()
	for _, f := range row.Fields() {
		if f != "id" && f != "uuid" {
			row.Unset(f)
		}
	}
	row.Set("task_state", nil)
	err := m.dep.Conductor.SaveInstance(ctx, o.rc, row, Expect{TaskState: []string{o.inst.String("task_state")}})
	if gone(err) || messaging.IsRemote(err, "UnexpectedTaskStateError") {
		return nil
	}
	if err == nil {
		o.inst.SetClean("task_state", nil)
	}
	return err
}
