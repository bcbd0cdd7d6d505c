package mounts_test

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot/mounts"
)

// TestOwnThread: the first thread of the process, which /proc/self shows, keeps
// its namespaces whatever is done, and no thread stays changed.
func TestOwnThread(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			err := mounts.OwnThread(func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("on the first thread")
				}
				return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if after, err := os.Readlink("/proc/self/ns/mnt"); err != nil || after != before {
		t.Errorf("%s became %s, %v", before, after, err)
	}
}

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
