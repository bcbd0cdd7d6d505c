package daemon

import (
	"fmt"
	"path/filepath"

	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/linux"
)

// journalName is the file of intents below the engine's root.
const journalName = "journal"

// openJournal opens the intents beside the records. The caller owns the records.
func openJournal(root string) (*store.Log, error) {
	boot, err := linux.BootID()
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return store.OpenLog(filepath.Join(root, journalName), boot)
}
