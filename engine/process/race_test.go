package process

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Renames elsewhere make openat2 answer EAGAIN for a path with "..": the
// program looks again.
func TestProgramRepeatsLookups(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "deep"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer func() { close(end); wg.Wait() }()

	c := &compiler{Program: newProgram()}
	root := c.place("directory", dir, unix.O_PATH|unix.O_DIRECTORY)
	for range 5000 {
		_, fd := c.open("look", root, "deep/../deep/../deep/../deep", unix.O_PATH, inImage)
		c.close("close", fd)
	}
	c.call("end", unix.SYS_EXIT_GROUP, num(0))
	if records, code := run(t, c.Program); len(records) != 0 || code != 0 {
		t.Errorf("records %v, code %d", records, code)
	}
}
