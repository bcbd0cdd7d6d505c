// Package disktest makes disk images for tests, with the programs that
// distributions make theirs with. Needs the packages e2fsprogs, btrfs-progs,
// xfsprogs, dosfstools, fdisk and qemu-utils. For tests only.
package disktest

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// MiB in bytes.
const MiB = 1 << 20

// Types of partitions of a GPT.
const (
	TypeLinux   = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	TypeEFI     = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	TypeRootX86 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
)

// Run runs a program and returns what it says.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// Tree makes a directory with the files, by path: content that begins with "->"
// is the target of a symbolic link, a path that ends in a slash a directory.
// Files can be executed.
func Tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, ok := strings.CutPrefix(content, "->"); ok && err == nil {
			err = os.Symlink(target, path)
		} else if strings.HasSuffix(name, "/") && err == nil {
			err = os.MkdirAll(path, 0o755)
		} else if err == nil {
			err = os.WriteFile(path, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Root is what a merged-usr distribution looks like, from far away.
func Root() map[string]string {
	return map[string]string{
		"etc/os-release": "NAME=test\n", "usr/lib/systemd/systemd": "#!/bin/sh\n", "usr/sbin/init": "->../lib/systemd/systemd",
		"sbin": "->usr/sbin", "bin": "->usr/bin", "lib": "->usr/lib", "usr/bin/true": "#!/bin/sh\n", "boot/": "",
	}
}

// Make makes an image file with a file system of the type, as mkfs calls it
// (ext2, ext3, ext4, btrfs, xfs, vfat, swap), that holds the tree at dir, if any.
// XFS needs 300 MiB and is mounted to be filled.
func Make(t testing.TB, kind, dir string, size int64, args ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), kind)
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	program, args := "mkfs."+kind, append([]string{}, args...)
	switch kind {
	case "ext2", "ext3", "ext4":
		args = append(args, "-q", "-F")
		if dir != "" {
			args = append(args, "-d", dir)
		}
	case "btrfs":
		args = append(args, "-q", "-f")
		if dir != "" {
			args = append(args, "--rootdir", dir)
		}
	case "xfs":
		args = append(args, "-q", "-f")
	case "swap":
		program = "mkswap"
	}
	Run(t, program, append(args, name)...)
	if kind == "xfs" && dir != "" {
		fill(t, name, dir)
	}
	return name
}

// fill copies a tree into a file system.
func fill(t testing.TB, image, dir string) {
	t.Helper()
	Script(t, image, `cp -a "$1/." .`, dir)
}

// Script runs a script of sh in the top directory of the file system of an image
// file, with the arguments from $1 on. The host's kernel mounts it meanwhile.
func Script(t testing.TB, image, script string, args ...string) {
	t.Helper()
	at := t.TempDir()
	Run(t, "mount", "-o", "loop", image, at)
	cmd := exec.Command("sh", append([]string{"-euc", script, "sh"}, args...)...)
	cmd.Dir = at
	out, err := cmd.CombinedOutput()
	Run(t, "umount", at)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// Disk makes a disk of size bytes with the table that sfdisk makes of the
// script, and image files at places of it.
func Disk(t testing.TB, size int64, script string, parts map[int64]string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if script != "" {
		cmd := exec.Command("sfdisk", "-q", name)
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sfdisk: %v\n%s", err, out)
		}
	}
	for at, part := range parts {
		put(t, f, at, part)
	}
	return name
}

func put(t testing.TB, f *os.File, at int64, part string) {
	t.Helper()
	src, err := os.Open(part)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := io.Copy(io.NewOffsetWriter(f, at), src); err != nil {
		t.Fatal(err)
	}
}

// QCOW2 makes a qcow2 image of the raw one; options are those of qemu-img
// convert.
func QCOW2(t testing.TB, raw string, options ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.qcow2")
	Run(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, options...), raw, name)...)
	return name
}
