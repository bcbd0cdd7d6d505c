package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gantry-project/gantry/functional/measure"
)

// debian imports what docker save writes of a Debian system, whose root
// functional/bench-images has made.
func (b *bench) debian(ctx context.Context) error {
	root, archive := b.path("debian.tar"), b.path("debian-docker.tar")
	for _, args := range [][]string{
		b.theirs("import", "-c", `CMD ["/bin/sh"]`, root, "bench.example/debian:1"),
		b.theirs("save", "-o", archive, "bench.example/debian:1"),
		b.theirs("rmi", "-f", "bench.example/debian:1"),
	} {
		if err := b.must(ctx, args...); err != nil {
			return err
		}
	}
	s := b.race(ctx, []contender{
		{"gantry import, docker archive of Debian", b.ours("import", archive, "debian"), b.oursImage("rm", "debian")},
		{"docker load", b.theirs("load", "-i", archive), b.theirs("rmi", "-f", "bench.example/debian:1")},
		{"podman load", b.podman("load", "-i", archive), b.podman("rmi", "-f", "bench.example/debian:1")},
		{"ctr image import", b.ctr("image", "import", archive), b.ctr("image", "rm", "--sync", "bench.example/debian:1")},
		b.tarX("tar x of the root", root),
	})
	b.faster("import of Debian", s[0], s[1:4], s[4])
	return nil
}

// tarX is plain tar, and the sync that an import does too.
func (b *bench) tarX(name, file string) contender {
	dir := b.path("x")
	return contender{name, []string{"sh", "-c", fmt.Sprintf("mkdir %s && tar -C %s -xf %s && sync -f %s", dir, dir, file, dir)}, []string{"rm", "-rf", dir}}
}

// faster adds the bars of an import.
func (b *bench) faster(what string, ours *measure.Series, engines []*measure.Series, tar *measure.Series) {
	for _, e := range engines {
		b.report.Ratio(what+": gantry / "+e.Name, ours, e, 1)
	}
	b.report.Ratio(what+": gantry / tar x", ours, tar, 1.3)
}

// largeRoot imports a root file system of b.large bytes, compressed.
func (b *bench) largeRoot(ctx context.Context) error {
	if err := b.makeLarge(); err != nil {
		return err
	}
	tree, gz, zst := b.path("large"), b.path("large.tar.gz"), b.path("large.tar.zst")
	for _, args := range [][]string{
		{"sh", "-c", fmt.Sprintf("tar -C %s -c . | gzip -1 > %s", tree, gz)},
		{"sh", "-c", fmt.Sprintf("tar -C %s -c . | zstd -q -3 > %s", tree, zst)},
	} {
		if err := b.must(ctx, args...); err != nil {
			return err
		}
	}
	for _, file := range []string{gz, zst} {
		kind := strings.TrimPrefix(filepath.Ext(file), ".")
		watch := b.watch()
		s := b.race(ctx, []contender{
			{"gantry import, " + kind, b.ours("import", file, "large"), b.oursImage("rm", "large")},
			{"docker import, " + kind, b.theirs("import", file, "large:bench"), b.theirs("rmi", "-f", "large:bench")},
			{"podman import, " + kind, b.podman("import", file, "large:bench"), b.podman("rmi", "-f", "large:bench")},
			b.tarX("tar x, "+kind, file),
		})
		b.faster("root of 2 GiB as "+kind, s[0], s[1:3], s[3])
		b.report.Below("memory above idle, "+kind, watch(), 64, "MiB")
	}
	return os.RemoveAll(gz)
}

// disk imports the same files out of a qcow2 with ext4 in a GPT.
func (b *bench) disk(ctx context.Context) error {
	if err := b.makeLarge(); err != nil {
		return err
	}
	tree, plain, fs, raw, qcow := b.path("large"), b.path("large.tar"), b.path("large.ext4"), b.path("large.raw"), b.path("large.qcow2")
	size := b.large + b.large/4
	script := fmt.Sprintf(`set -e
tar -C %[1]s -cf %[2]s .
truncate -s %[6]d %[3]s && mkfs.ext4 -q -F -d %[1]s %[3]s
truncate -s %[7]d %[4]s && sfdisk -q %[4]s <<END
label: gpt
start=2048, size=%[8]d, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
END
dd if=%[3]s of=%[4]s bs=1M seek=1 conv=notrunc,sparse status=none
qemu-img convert -O qcow2 %[4]s %[5]s
rm -f %[3]s %[4]s`, tree, plain, fs, raw, qcow, size, size+(4<<20), size/512)
	if err := b.must(ctx, "sh", "-c", script); err != nil {
		return err
	}
	watch := b.watch()
	s := b.race(ctx, []contender{
		{"gantry import, qcow2", b.ours("import", "--disk-format", "qcow2", "--container-format", "bare", qcow, "disk"), b.oursImage("rm", "disk")},
		b.tarX("tar x of the same files", plain),
	})
	b.faster("root of 2 GiB in a qcow2", s[0], nil, s[1])
	b.report.Below("memory above idle, qcow2", watch(), 64, "MiB")
	return nil
}

// makeLarge makes a root of b.large bytes: half in files of 1 MiB, half in small
// ones, of which a third compresses as programs do.
func (b *bench) makeLarge() error {
	tree := b.path("large")
	if _, err := os.Stat(tree); err == nil {
		return nil
	}
	source := rand.NewChaCha8([32]byte{7})
	buf := make([]byte, 1<<20)
	made := int64(0)
	for dir := 0; made < b.large; dir++ {
		name := filepath.Join(tree, "usr", "lib", fmt.Sprint(dir))
		if err := os.MkdirAll(name, 0o755); err != nil {
			return err
		}
		for file := range 64 {
			size := 1 << 20
			if file > 7 {
				size = 16 << 10
			}
			data := buf[:size]
			_, _ = source.Read(data)
			for i := range data {
				if i%3 != 0 {
					data[i] = byte(i / 64)
				}
			}
			if err := os.WriteFile(filepath.Join(name, fmt.Sprint(file)), data, 0o644); err != nil {
				return err
			}
			made += int64(size)
		}
	}
	for _, dir := range []string{"etc", "sbin"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(tree, "sbin", "init"), []byte("#!/bin/sh\n"), 0o755)
}

// watch samples the memory of the engine and of what it has started until the
// returned function is called, which gives the most above the beginning (MiB).
func (b *bench) watch() func() float64 {
	idle := b.memory()
	var most int64
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				most = max(most, b.memory()-idle)
			}
		}
	})
	return func() float64 {
		close(done)
		ended.Wait()
		return float64(most) / (1 << 20)
	}
}

// memory of the engine's process and its children: private and anonymous pages,
// without those of files (bytes).
func (b *bench) memory() int64 {
	pids := []string{fmt.Sprint(b.engine.Process.Pid)}
	var total int64
	for len(pids) > 0 {
		pid := pids[0]
		pids = pids[1:]
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(status)) {
			var kib int64
			if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kib); n == 1 {
				total += kib << 10
			}
		}
		tasks, _ := filepath.Glob("/proc/" + pid + "/task/*/children")
		for _, file := range tasks {
			if text, err := os.ReadFile(file); err == nil {
				pids = append(pids, strings.Fields(string(text))...)
			}
		}
	}
	return total
}
