package linux_test

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/linux"
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
			err := linux.OwnThread(func() error {
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
