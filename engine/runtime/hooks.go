package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/engine/process"
)

// poststart runs the hooks of a container whose command has begun. A hook that
// fails ends the container (runtime.md, Lifecycle, step 9, as runc reads it)
// and is the error.
func (r *Runtime) poststart(ctx context.Context, rec *record, hooks []process.Hook) error {
	for i := range hooks {
		if err := process.RunHook(ctx, &hooks[i], r.stateBytes(rec, Running, rec.Process.Pid)); err != nil {
			return errors.Join(fmt.Errorf("poststart hook %d (%s): %w", i, hooks[i].Path, err), r.signal(rec, sigkill))
		}
	}
	return nil
}

// poststop runs the hooks of a container that is no more. One that fails is
// warned of; the others run all the same (runtime.md, Lifecycle, step 13).
func (r *Runtime) poststop(ctx context.Context, rec *record, hooks []process.Hook) {
	for i := range hooks {
		if err := process.RunHook(ctx, &hooks[i], r.stateBytes(rec, Stopped, 0)); err != nil {
			r.log.Warn().Err(err).Str("container", rec.ID).Str("hook", hooks[i].Path).Msg("poststop hook failed")
		}
	}
}

// hooks reads those of the configuration, which were good at create.
func (r *Runtime) hooks(rec *record) (poststart, poststop []process.Hook, err error) {
	spec, err := r.config(rec.ID)
	if err != nil {
		return nil, nil, err
	}
	conf, err := oci.Convert(spec, rec.Bundle, r.host())
	if err != nil {
		return nil, nil, err
	}
	return conf.Poststart, conf.Poststop, nil
}
