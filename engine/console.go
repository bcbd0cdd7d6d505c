package engine

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/engine/conlog"
)

// maxConsole bounds what one call returns, in bytes.
const maxConsole = 16 << 20

// Console returns the last lines of the container's console, all that is kept
// when lines is negative. It works whether the container runs or not.
func (e *Engine) Console(ctx context.Context, id ContainerID, lines int) ([]byte, error) {
	_, unlock, err := e.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if lines == 0 {
		return nil, nil
	}
	out, err := conlog.Tail(e.conFile(id), lines, maxConsole)
	if err != nil {
		return nil, fmt.Errorf("console of container %s: %w", id, err)
	}
	return out, nil
}
