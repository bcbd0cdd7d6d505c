package compute

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// refuse answers NotImplementedError, Nova's word for what a driver cannot do.
func refuse(what string) handler {
	return func(*Manager, context.Context, *op) (any, error) { return nil, notSupported(what) }
}

func notSupported(what string) error {
	return messaging.NotImplemented(what + " is not supported by this host.")
}

// refuseAs answers an exception of Nova's.
func refuseAs(class string, code int, text string) handler {
	return func(*Manager, context.Context, *op) (any, error) {
		return nil, messaging.NovaError(class, code, "%s", text)
	}
}

// refuseConsole names the type that was asked for, which must be text.
func refuseConsole(usual string) handler {
	return func(_ *Manager, _ context.Context, o *op) (any, error) {
		kind := usual
		if err := o.arg("console_type", &kind); err != nil {
			return nil, err
		}
		return nil, messaging.NovaError("ConsoleTypeUnavailable", 400, "Unavailable console type %s.", clip(kind, 64))
	}
}

// refuseVolume refuses so that the API tells the user: an attach that is only
// ignored would look like success.
func refuseVolume() handler {
	return refuseAs("InvalidVolume", 400, "Invalid volume: volumes are not supported by this host.")
}

func refuseLive() handler {
	return refuseAs("MigrationPreCheckError", 500, "Migration pre-check error: this host does not support the migration of running instances.")
}

// nothing is done for methods that undo what is never done here.
func (m *Manager) nothing(context.Context, *op) (any, error) { return nil, nil }

// migration is the argument of that name, nil if there is none.
func (o *op) migration() (*objects.Object, error) {
	mig := o.mig
	if err := o.arg("migration", &mig); err != nil {
		return nil, err
	}
	if mig != nil && mig.Name != "Migration" {
		return nil, fmt.Errorf("argument migration of %s: a %s: %w", o.name, mig.Name, errdefs.ErrInvalid)
	}
	return mig, nil
}

// failMigration sets the migration's status to error.
func (m *Manager) failMigration(ctx context.Context, o *op) error {
	mig, err := o.migration()
	if err != nil || mig == nil {
		return err
	}
	mig.ResetChanges()
	mig.Set("status", "error")
	return m.dep.Conductor.SaveMigration(ctx, o.rc, mig)
}
