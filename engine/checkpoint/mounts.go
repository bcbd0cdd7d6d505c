package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// A Mount is one that criu does not make: it shows something of the host, and
// at a restore is bound from what takes its place. One of Device, Empty, Entries,
// Cgroup and View says what it shows.
type Mount struct {
	// Path is where it is mounted, inside, and Options are those of the mount, as
	// in mountinfo (proc_pid_mountinfo(5), field 6).
	Path    string `json:"path"`
	Options string `json:"options"`
	// Device is the name of a default device (runtime-spec, config-linux.md).
	Device string `json:"device,omitempty"`
	// Empty is a directory that hides another.
	Empty bool `json:"empty,omitempty"`
	// Entries are the names in a directory that holds nothing but directories, for
	// other mounts, and links to them: what a link says, "" for a directory.
	Entries map[string]string `json:"entries,omitempty"`
	// Cgroup is the path of a control group on the host.
	Cgroup string `json:"cgroup,omitempty"`
	// View is the path on the host of a file or directory of the guest's own view
	// (engine/view).
	View string `json:"view,omitempty"`
}

// viewType is the file system of the guest's own view (engine/view/fuse, Type).
const viewType = "fuse.gantry"

// devices are those that a container's mounts may show.
var devices = map[string][2]uint32{
	"null": {1, 3}, "zero": {1, 5}, "full": {1, 7}, "random": {1, 8}, "urandom": {1, 9}, "tty": {5, 0},
}

// check takes nothing that would show more of the host than a container has.
func (m Mount) check() error {
	what := 0
	if m.Device != "" {
		what++
		if _, ok := devices[m.Device]; !ok {
			return fmt.Errorf("mount %q: device %q: %w", m.Path, m.Device, errdefs.ErrCorrupt)
		}
	}
	if m.Empty {
		what++
	}
	if m.Entries != nil {
		what++
		for name, link := range m.Entries {
			if _, ok := m.Entries[cmp.Or(link, name)]; !ok || len(m.Entries) > maxEntries || !clean("/"+name) || strings.Contains(name, "/") {
				return fmt.Errorf("mount %q: entry %q: %w", m.Path, name, errdefs.ErrCorrupt)
			}
		}
	}
	if m.Cgroup != "" {
		what++
	}
	if m.View != "" {
		what++
	}
	if _, err := m.flags(); err != nil {
		return err
	}
	if what != 1 || !clean(m.Path) || m.Cgroup != "" && !clean(m.Cgroup) || m.View != "" && !clean(m.View) {
		return fmt.Errorf("mount %q: %w", m.Path, errdefs.ErrCorrupt)
	}
	return nil
}

// maxEntries is more than there are controllers.
const maxEntries = 64

// flags are Options for mount(2).
func (m Mount) flags() (flags uintptr, err error) {
	known := map[string]uintptr{
		"rw": 0, "ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
		"relatime": unix.MS_RELATIME, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "nosymfollow": unix.MS_NOSYMFOLLOW,
	}
	for word := range strings.SplitSeq(m.Options, ",") {
		flag, ok := known[word]
		if !ok {
			return 0, fmt.Errorf("mount %q: option %q: %w", m.Path, word, errdefs.ErrCorrupt)
		}
		flags |= flag
	}
	return flags, nil
}

// clean reports whether path may be part of criu's words for a mount.
func clean(path string) bool {
	return filepath.IsAbs(path) && path != "/" && filepath.Clean(path) == path && !strings.ContainsAny(path, "[]:\x00\n")
}

// key is what criu calls it.
func (m Mount) key() string { return "mnt[" + m.Path + "]" }

// foreignMounts are those of a process's mount namespace that show what is not
// its own: control groups, and parts of a file system whose whole is not there.
func foreignMounts(pid int) ([]Mount, error) {
	inside, err := mountsOf(pid)
	if err != nil {
		return nil, err
	}
	host, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	whole := map[[2]int]bool{}
	for _, m := range inside {
		whole[[2]int{m.Major, m.Minor}] = whole[[2]int{m.Major, m.Minor}] || m.Root == "/"
	}
	var list []Mount
	for _, m := range inside {
		if m.Mountpoint == "/" || whole[[2]int{m.Major, m.Minor}] && !isCgroup(m) {
			continue
		}
		mount, err := describe(root, m, host)
		if err == nil {
			err = mount.check()
		}
		if err != nil {
			return nil, err
		}
		list = append(list, mount)
	}
	return list, nil
}

func isCgroup(m *mountinfo.Info) bool { return m.FSType == "cgroup" || m.FSType == "cgroup2" }

func mountsOf(pid int) ([]*mountinfo.Info, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return mountinfo.GetMountsFromReader(f, nil)
}

// describe finds out what a mount shows.
func describe(root *os.File, m *mountinfo.Info, host []*mountinfo.Info) (Mount, error) {
	out := Mount{Path: m.Mountpoint, Options: m.Options}
	unknown := fmt.Errorf("mount %s of type %s shows something of the host: %w", m.Mountpoint, m.FSType, errdefs.ErrUnsupported)
	if isCgroup(m) || m.FSType == viewType {
		for _, h := range host {
			if h.Major != m.Major || h.Minor != m.Minor || h.Root != "/" {
				continue
			}
			if at := filepath.Join(h.Mountpoint, m.Root); isCgroup(m) {
				out.Cgroup = at
			} else {
				out.View = at
			}
			return out, nil
		}
		return out, unknown
	}
	f, err := linux.OpenInRoot(root, strings.TrimPrefix(m.Mountpoint, "/"), unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return out, fmt.Errorf("mount %s: %w", m.Mountpoint, err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return out, os.NewSyscallError("fstat", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		for name, number := range devices {
			if number == [2]uint32{unix.Major(st.Rdev), unix.Minor(st.Rdev)} {
				out.Device = name
				return out, nil
			}
		}
	case unix.S_IFDIR:
		if m.FSType != "tmpfs" {
			break
		}
		if out.Entries, err = entriesOf(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err == nil {
			if len(out.Entries) == 0 {
				out.Empty, out.Entries = true, nil
			}
			return out, nil
		}
	}
	return out, unknown
}

// entriesOf reads Mount.Entries; an error where there is anything else.
func entriesOf(dir string) (map[string]string, error) {
	list, err := os.ReadDir(dir)
	entries := map[string]string{}
	for _, e := range list {
		switch e.Type() {
		case os.ModeDir:
			entries[e.Name()] = ""
		case os.ModeSymlink:
			if entries[e.Name()], err = os.Readlink(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%s is no directory: %w", e.Name(), errdefs.ErrUnsupported)
		}
	}
	return entries, err
}

// The stage is what takes the place of the host at a restore: the mounts and the
// root, each a mount with its options already, because criu does not give them to
// a mount that shows the same as another. It covers a directory that every host
// has (FHS, /mnt) in a mount namespace of criu's: the processes, which have no
// rights on the host, must come there by its path.
const (
	stageDir    = "/mnt"
	stageRoot   = stageDir + "/root"
	stageDev    = stageDir + "/dev"
	stageEmpty  = stageDir + "/empty"
	stageMounts = stageDir + "/mounts"
)

// stageOf is where criu finds the mount with a number.
func stageOf(number int) string { return filepath.Join(stageMounts, strconv.Itoa(number)) }

// setStage makes the stage in the mount namespace of the calling thread, which
// must be a new one: nobody else sees it, and it ends with that.
func setStage(root string, mounts []Mount) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	rootfs, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer func() { _ = unix.Close(rootfs) }()
	if err := unix.Mount("none", stageDir, "tmpfs", 0, "mode=711,size=256k"); err != nil {
		return fmt.Errorf("mount stage: %w", err)
	}
	unix.Umask(0) // the thread's own: a new mount namespace is not shared
	for _, name := range []string{stageRoot, stageDev, stageEmpty, stageMounts} {
		if err := unix.Mkdir(name, 0o555); err != nil {
			return fmt.Errorf("make stage: %w", err)
		}
	}
	for name, number := range devices {
		if err := unix.Mknod(filepath.Join(stageDev, name), unix.S_IFCHR|0o666, int(unix.Mkdev(number[0], number[1]))); err != nil {
			return fmt.Errorf("make device %s: %w", name, err)
		}
	}
	if err := unix.Mount(fmt.Sprintf("/proc/thread-self/fd/%d", rootfs), stageRoot, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind root: %w", err)
	}
	for i, m := range mounts {
		if err := m.stage(stageOf(i)); err != nil {
			return fmt.Errorf("mount %s: %w", m.Path, err)
		}
	}
	return nil
}

// stage binds what the mount shows to a file or directory that is made.
func (m Mount) stage(at string) error {
	source, err := m.source(at)
	if err != nil {
		return err
	}
	flags, err := m.flags()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		return fmt.Errorf("look at %s: %w", source, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.Mknod(at, unix.S_IFREG|0o400, 0)
	} else {
		err = unix.Mkdir(at, 0o500)
	}
	if err != nil {
		return fmt.Errorf("make stage: %w", err)
	}
	if err := unix.Mount(source, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("set options: %w", err)
	}
	return nil
}

// source is what the mount shows; what has to be made for it lies beside at.
func (m Mount) source(at string) (string, error) {
	switch {
	case m.Device != "":
		return filepath.Join(stageDev, m.Device), nil
	case m.Empty:
		return stageEmpty, nil
	case m.Entries != nil:
		dir := at + "-entries"
		err := os.Mkdir(dir, 0o755)
		for name, link := range m.Entries {
			if err == nil && link == "" {
				err = os.Mkdir(filepath.Join(dir, name), 0o755)
			} else if err == nil {
				err = os.Symlink(link, filepath.Join(dir, name))
			}
		}
		return dir, err
	}
	var st unix.Statfs_t
	if m.View != "" {
		if err := unix.Statfs(m.View, &st); err != nil || st.Type != unix.FUSE_SUPER_MAGIC {
			return "", fmt.Errorf("the view %s of the guest is not there: %w", m.View, errors.Join(err, errdefs.ErrConflict))
		}
		return m.View, nil
	}
	if err := unix.Statfs(m.Cgroup, &st); err != nil {
		return "", fmt.Errorf("control group %s: %w: %w", m.Cgroup, err, errdefs.ErrConflict)
	}
	if st.Type != unix.CGROUP_SUPER_MAGIC && st.Type != unix.CGROUP2_SUPER_MAGIC {
		return "", fmt.Errorf("%s is no control group: %w", m.Cgroup, errdefs.ErrCorrupt)
	}
	return m.Cgroup, nil
}
