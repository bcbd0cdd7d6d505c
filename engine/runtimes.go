package engine

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/gantry-project/gantry/engine/foreign"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/seccomp"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// CheckRuntime reports whether containers can be made for a runtime of that
// name; errdefs.ErrInvalid names the one that is unknown. The engine's own is
// "".
func (e *Engine) CheckRuntime(name string) error {
	if _, ok := e.opts.Runtimes[name]; !ok && name != "" {
		return fmt.Errorf("runtime %.64q is not among those of this host: %w", name, errdefs.ErrInvalid)
	}
	return nil
}

// prepareRuntime lets another runtime forget the process before this one while
// its control group is not there yet: a runtime deletes that too.
func (e *Engine) prepareRuntime(ctx context.Context, rec store.Container) error {
	if rec.Runtime == "" {
		return nil
	}
	if err := e.CheckRuntime(rec.Runtime); err != nil {
		return err
	}
	return e.opts.Runner.Forget(ctx, rec.ID)
}

// useRuntime turns a spec into one for the container's runtime.
func (e *Engine) useRuntime(spec *process.Spec, rec store.Container) error {
	if rec.Runtime == "" {
		return nil
	}
	if err := e.CheckRuntime(rec.Runtime); err != nil {
		return err
	}
	filter, err := runtimeFilter()
	if err != nil {
		return err
	}
	spec.Runtime = e.opts.Runtimes[rec.Runtime]
	spec.UIDMap, spec.GIDMap = idMaps(rec), idMaps(rec)
	spec.Seccomp, spec.RuntimeSeccomp = nil, filter
	return nil
}

// runtimeFilter is the filter of every container in the specification's form.
var runtimeFilter = sync.OnceValues(func() ([]byte, error) {
	profile, err := seccomp.Default(capabilities)
	if err != nil {
		return nil, err
	}
	return foreign.Filter(profile, seccomp.Arch(runtime.GOARCH))
})
