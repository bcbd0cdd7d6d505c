//go:build functional

package crash

import (
	"context"
	"os"

	"github.com/gantry-project/gantry/engine/api"
)

// exec runs a command in a container, without input or output.
func (h *host) exec(ctx context.Context, id string, req api.Exec) (*api.Running, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return h.api.Exec(ctx, id, req, [3]*os.File{null, null, null})
}

// run runs a script in a container and returns how it ended.
func (h *host) run(ctx context.Context, id, script string) (code int, err error) {
	r, err := h.exec(ctx, id, api.Exec{Args: []string{"sh", "-c", script}})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	e, err := r.Wait(ctx)
	return e.Code, err
}
