package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func cpCommand() *cobra.Command {
	return changing("cp SOURCE DEST", "copy files into or out of a container (CONTAINER:PATH)", cobra.ExactArgs(2), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		from, src, fromContainer := splitPlace(args[0])
		to, dst, toContainer := splitPlace(args[1])
		switch {
		case fromContainer == toContainer:
			return fmt.Errorf("cp: one side, and only one, is CONTAINER:PATH: %w", errdefs.ErrInvalid)
		case fromContainer && dst == "-":
			return copyOutStream(ctx, c, from, src, cmd.OutOrStdout())
		case fromContainer:
			return copyOut(ctx, c, from, src, dst)
		case src == "-":
			_, err := c.CopyIn(ctx, to, dst, cmd.InOrStdin())
			return err
		}
		return copyIn(ctx, c, to, dst, src)
	})
}

// splitPlace tells CONTAINER:PATH from a path of this host.
func splitPlace(text string) (id, name string, container bool) {
	before, after, ok := strings.Cut(text, ":")
	if !ok || strings.ContainsAny(before, "/.") || before == "" {
		return "", text, false
	}
	return before, after, true
}

func copyOutStream(ctx context.Context, c *api.Client, id, name string, w io.Writer) error {
	r, err := c.CopyOut(ctx, id, name)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}

// copyOut unpacks what the container sends. It is not trusted: os.Root keeps
// all of it below the destination, whatever links it brings along, owners are
// not taken over, and set-id bits are dropped.
func copyOut(ctx context.Context, c *api.Client, id, name, dst string) error {
	r, err := c.CopyOut(ctx, id, name)
	if err != nil {
		return err
	}
	defer r.Close()
	dir, rename := dst, ""
	if info, err := os.Stat(dst); err != nil || !info.IsDir() {
		dir, rename = filepath.Dir(dst), filepath.Base(dst)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(hdr.Name)
		if rename != "" {
			_, below, _ := strings.Cut(name, "/")
			name = path.Join(rename, below)
		}
		if err := unpack(root, name, hdr, tr); err != nil {
			return fmt.Errorf("cp %s:%s: %w", id, hdr.Name, err)
		}
	}
}

func unpack(root *os.Root, name string, hdr *tar.Header, r io.Reader) error {
	mode := fs.FileMode(hdr.Mode) & fs.ModePerm
	switch hdr.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		return root.Chmod(name, mode|0o700)
	case tar.TypeReg:
		if err := replace(root, name); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Chmod(mode), f.Close())
	case tar.TypeSymlink:
		return errors.Join(replace(root, name), root.Symlink(hdr.Linkname, name))
	case tar.TypeLink:
		return fmt.Errorf("hard link to %q: copy to - and unpack it: %w", hdr.Linkname, errdefs.ErrUnsupported)
	}
	return nil // a fifo is of no use here
}

// replace makes room for a file or link, not in the place of a directory.
func replace(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("a directory is in the way: %w", errdefs.ErrConflict)
	}
	return root.Remove(name)
}

// copyIn sends a file or directory of this host.
func copyIn(ctx context.Context, c *api.Client, id, dst, src string) error {
	info, err := os.Lstat(src)
	if err != nil {
		return err
	}
	// into a directory that is there, or as what the path names
	dir, base := dst, filepath.Base(filepath.Clean(src))
	if !strings.HasSuffix(dst, "/") {
		if isDir, err := containerDir(ctx, c, id, dst); err != nil {
			return err
		} else if !isDir {
			dir, base = path.Split(path.Clean(dst))
		}
	}
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(pack(w, src, base, info)) }()
	defer func() { _ = r.Close() }()
	_, err = c.CopyIn(ctx, id, dir, r)
	return err
}

// containerDir asks whether a path of the container is a directory.
func containerDir(ctx context.Context, c *api.Client, id, name string) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := c.CopyOut(ctx, id, name)
	if err != nil {
		return false, err
	}
	defer r.Close()
	hdr, err := tar.NewReader(r).Next()
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	return err == nil && hdr.Typeflag == tar.TypeDir, err
}

// pack writes the file or tree at src as base; owners are root inside.
func pack(w io.Writer, src, base string, info fs.FileInfo) error {
	tw := tar.NewWriter(w)
	if !info.IsDir() {
		if err := packOne(tw, src, base, info); err != nil {
			return err
		}
		return tw.Close()
	}
	err := filepath.WalkDir(src, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return packOne(tw, name, path.Join(base, filepath.ToSlash(rel)), info)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func packOne(tw *tar.Writer, name, as string, info fs.FileInfo) error {
	link := ""
	if info.Mode().Type() == fs.ModeSymlink {
		var err error
		if link, err = os.Readlink(name); err != nil {
			return err
		}
	}
	hdr, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	hdr.Name, hdr.Uid, hdr.Gid, hdr.Uname, hdr.Gname = as, 0, 0, "", ""
	if info.IsDir() {
		hdr.Name += "/"
	}
	if err := tw.WriteHeader(hdr); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}
