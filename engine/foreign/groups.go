package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// groupPath is the container's control group in the specification's terms, ""
// without one: its path below the mount of each hierarchy, which is the same in
// all. The files of the Spec say where it is.
func groupPath(s *process.Spec) (string, error) {
	files := s.CgroupFiles
	if s.CgroupDir != nil {
		files = append(files[:len(files):len(files)], s.CgroupDir)
	}
	found := ""
	for _, f := range files {
		at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err != nil {
			return "", err
		}
		if f != s.CgroupDir {
			at = filepath.Dir(at)
		}
		path, err := belowMount(at)
		switch {
		case err != nil:
			return "", fmt.Errorf("control group %s: %w", at, err)
		case found != "" && found != path:
			return "", fmt.Errorf("control groups %s and %s of one container: another runtime takes one path: %w", found, path, errdefs.ErrUnsupported)
		}
		found = path
	}
	return found, nil
}

// belowMount cuts off where the hierarchy of a directory is mounted.
func belowMount(dir string) (string, error) {
	for mount := dir; ; {
		up := filepath.Dir(mount)
		var here, above unix.Stat_t
		if err := unix.Lstat(mount, &here); err != nil {
			return "", err
		}
		if err := unix.Lstat(up, &above); err != nil {
			return "", err
		}
		if here.Dev != above.Dev || up == mount {
			return "/" + strings.TrimPrefix(strings.TrimPrefix(dir, mount), "/"), nil
		}
		mount = up
	}
}

// joinGroups makes sure that a created container is where it belongs, whatever
// its runtime thinks of the path.
func joinGroups(pid int, s *process.Spec) error {
	for _, f := range s.CgroupFiles {
		if _, err := f.WriteString(strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}
