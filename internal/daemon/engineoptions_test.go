package daemon

import (
	"errors"
	"os"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestEngineRefusesAViewThatIsNone: before anything is made.
func TestEngineRefusesAViewThatIsNone(t *testing.T) {
	dir := t.TempDir()
	if err := Engine(t.Context(), EngineOptions{StorePath: dir, GuestView: "some"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
