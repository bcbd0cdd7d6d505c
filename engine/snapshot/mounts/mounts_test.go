package mounts_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot/mounts"
)

func TestAsRootKeepsTheCaller(t *testing.T) {
	err := mounts.AsRoot(1_000_000, func() error {
		var st unix.Stat_t
		name := t.TempDir() + "/f"
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			return err
		}
		if err := unix.Stat(name, &st); err != nil || st.Uid != 1_000_000 {
			t.Errorf("owner %d, %v", st.Uid, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mounts.IsMountPoint("/proc"); err != nil {
		t.Error(err)
	}
}
