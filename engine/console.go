package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantry-project/gantry/engine/conlog"
)

// maxConsole bounds what one call returns, in bytes.
const maxConsole = 16 << 20

// ConsoleLog is the path of a container's console log (engine/conlog) below an
// engine's root. There is nothing while the container has said nothing.
func ConsoleLog(root string, id ContainerID) string {
	// What an earlier version has made stays where it is: the keeper may have it
	// open under that name.
	if old := oldConsole(root, id); exists(old) {
		return filepath.Join(old, "console.log")
	}
	return newConsole(root, id)
}

func newConsole(root string, id ContainerID) string {
	return filepath.Join(root, "console", string(id)+".log")
}

// oldConsole is the directory that earlier versions made for a container's log.
func oldConsole(root string, id ContainerID) string {
	return filepath.Join(root, "console", string(id))
}

func (e *Engine) conFile(id ContainerID) string { return ConsoleLog(e.opts.Root, id) }

// consoleOf is the id of the container that an entry of the directory of logs
// belongs to: ID.log and what conlog keeps beside it, or the directory ID.
func consoleOf(name string) string {
	id, _, _ := strings.Cut(name, ".log")
	return id
}

func (e *Engine) removeConsole(id ContainerID) error {
	return errors.Join(conlog.Remove(newConsole(e.opts.Root, id)), os.RemoveAll(oldConsole(e.opts.Root, id)))
}

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
