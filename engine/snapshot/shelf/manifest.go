package shelf

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// manifest says what a committed layer consists of; it is written after the
// content and stands beside it. Disk format: JSON, docs/ondisk.md.
type manifest struct {
	Version int   `json:"v"`
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"`
	// Digest is over a line for each entry, see describe.
	Digest string `json:"digest"`
}

const manifestVersion = 1

// writeManifest records the content of the layer at dir, which has the form of
// the name. It syncs nothing.
func writeManifest(ctx context.Context, dir, form string) error {
	m, err := takeManifest(ctx, filepath.Join(dir, form))
	if err != nil {
		return fmt.Errorf("record layer: %w", err)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "manifest"), data, 0o600)
}

// readManifest of the layer at dir; fs.ErrNotExist if an earlier version made
// the layer.
func readManifest(dir string) (manifest, error) {
	var m manifest
	f, err := os.Open(filepath.Join(dir, "manifest"))
	if err != nil {
		return m, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return m, err
	}
	return parseManifest(data)
}

func parseManifest(data []byte) (manifest, error) {
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("manifest: %w: %w", errdefs.ErrCorrupt, err)
	}
	if m.Version != manifestVersion || m.Entries < 1 || m.Bytes < 0 || len(m.Digest) != 64 {
		return m, fmt.Errorf("manifest: version %d, %d entries: %w", m.Version, m.Entries, errdefs.ErrCorrupt)
	}
	return m, nil
}

// verifyManifest compares the layer at dir with its manifest.
func verifyManifest(ctx context.Context, dir string) error {
	want, err := readManifest(dir)
	if err != nil {
		return err
	}
	form := "fs"
	if is, err := isPacked(dir); err == nil && is {
		form = packed
	}
	got, err := takeManifest(ctx, filepath.Join(dir, form))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the content is gone: %w", errdefs.ErrCorrupt)
	case err != nil:
		return err
	case got.Entries != want.Entries:
		return fmt.Errorf("%d entries instead of %d: %w", got.Entries, want.Entries, errdefs.ErrCorrupt)
	case got.Bytes != want.Bytes:
		return fmt.Errorf("%d bytes instead of %d: %w", got.Bytes, want.Bytes, errdefs.ErrCorrupt)
	case got.Digest != want.Digest:
		return fmt.Errorf("names or attributes have changed: %w", errdefs.ErrCorrupt)
	}
	return nil
}

// takeManifest reads the tree at dir: names and attributes, no content. A
// power cut that loses content on a file system which honours syncfs loses
// sizes or names with it.
func takeManifest(ctx context.Context, dir string) (manifest, error) {
	w := manifestWalk{hash: sha256.New()}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return manifest{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	if err := w.directory(ctx, fd, "."); err != nil {
		return manifest{}, err
	}
	return manifest{Version: manifestVersion, Entries: w.entries, Bytes: w.bytes, Digest: fmt.Sprintf("%x", w.hash.Sum(nil))}, nil
}

type manifestWalk struct {
	hash           hash.Hash
	entries, bytes int64
	buf            [4096]byte
}

// directory reads the open directory fd, and closes it.
func (w *manifestWalk) directory(ctx context.Context, fd int, path string) error {
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	w.describe(path, "", &st)
	list, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(list)
	for _, name := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.entry(ctx, fd, name, path+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

func (w *manifestWalk) entry(ctx context.Context, dir int, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	target := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		sub, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		return w.directory(ctx, sub, path)
	case unix.S_IFLNK:
		n, err := unix.Readlinkat(dir, name, w.buf[:])
		if err != nil {
			return &os.PathError{Op: "readlink", Path: path, Err: err}
		}
		target = string(w.buf[:n])
	}
	w.describe(path, target, &st)
	return nil
}

// describe adds the line of one entry. Sizes and times are those that mean the
// same on every file system: of files, and not of directories.
func (w *manifestWalk) describe(path, target string, st *unix.Stat_t) {
	w.entries++
	var size int64
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		size = st.Size
		w.bytes += size
	}
	_, _ = fmt.Fprintf(w.hash, "%q %o %d:%d %d %d %q\n", path, st.Mode, st.Uid, st.Gid, size, uint64(st.Rdev), target)
}
