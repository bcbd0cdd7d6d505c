package main

import (
	"context"
	"fmt"
	"os"

	"github.com/gantry-project/gantry/functional/measure"
)

// commit commits nothing, one file of 64 MiB and 5,000 small ones.
func (b *bench) commit(ctx context.Context) error {
	root := b.path("debian.tar")
	for _, args := range [][]string{
		b.ours("import", root, "base"), b.theirs("import", root, "base:bench"),
	} {
		if err := b.must(ctx, args...); err != nil {
			return err
		}
	}
	for _, c := range []struct{ name, script string }{
		{"nothing", "true"},
		{"one file of 64 MiB", "head -c 67108864 /dev/urandom > /root/big"},
		{"5,000 small files", "i=0; while [ $i -lt 5000 ]; do echo $i > /root/f$i; i=$((i+1)); done"},
	} {
		script := c.script + "; touch /run/done; exec sleep 100000"
		for _, args := range [][]string{
			b.ours("run", "--id", "c", "base", "/bin/sh", "-c", script),
			b.theirs("run", "-d", "--network", "none", "--name", "bench", "base:bench", "/bin/sh", "-c", script),
			{"sh", "-c", "until " + shell(b.ours("exec", "c", "test", "-e", "/run/done")) + "; do sleep 0.1; done"},
			{"sh", "-c", "until " + shell(b.theirs("exec", "bench", "test", "-e", "/run/done")) + "; do sleep 0.1; done"},
		} {
			if err := b.must(ctx, args...); err != nil {
				return err
			}
		}
		s := b.race(ctx, []contender{
			{"gantry commit of " + c.name, b.ours("commit", "c", "snap"), b.oursImage("rm", "snap")},
			{"docker commit of " + c.name, b.theirs("commit", "bench", "snap:bench"), b.theirs("rmi", "-f", "snap:bench")},
		})
		b.report.Ratio("commit of "+c.name+": gantry / docker", s[0], s[1], 1.0/3)
		// what a commit leaves to the first container of the image
		b.race(ctx, []contender{
			{
				"gantry commit of " + c.name + " and a container of it",
				[]string{"sh", "-c", shell(b.ours("commit", "c", "snap")) + " &&" + shell(b.ours("run", "--id", "d", "snap", "/bin/sh", "-c", "exec sleep 100000"))},
				[]string{"sh", "-c", shell(b.ours("rm", "-k", "d")) + " &&" + shell(b.oursImage("rm", "snap"))},
			},
			{
				"docker commit of " + c.name + " and a container of it",
				[]string{"sh", "-c", shell(b.theirs("commit", "bench", "snap:bench")) + " &&" + shell(b.theirs("run", "-d", "--network", "none", "--name", "derived", "snap:bench", "/bin/sh", "-c", "exec sleep 100000"))},
				[]string{"sh", "-c", shell(b.theirs("rm", "-f", "derived")) + " &&" + shell(b.theirs("rmi", "-f", "snap:bench"))},
			},
		})
		for _, args := range [][]string{b.ours("rm", "-k", "c"), b.theirs("rm", "-f", "bench")} {
			if err := b.must(ctx, args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// flat takes delta snapshots of roots of three sizes.
func (b *bench) flat(ctx context.Context) error {
	var all []*measure.Series
	for _, mib := range []int{100, 1 << 10, 10 << 10} {
		name := fmt.Sprintf("root%d", mib)
		tree := b.path(name)
		script := fmt.Sprintf(`set -e
mkdir -p %[1]s/bin %[1]s/root && cp /bin/busybox %[1]s/bin/busybox && ln -sf busybox %[1]s/bin/sh
i=0; while [ $i -lt 100 ]; do head -c %[2]d /dev/urandom > %[1]s/root/f$i; i=$((i+1)); done
tar -C %[1]s -c . | zstd -q -1 > %[1]s.tar.zst; rm -rf %[1]s`, tree, mib<<20/100)
		for _, args := range [][]string{
			{"sh", "-c", script},
			b.ours("import", tree+".tar.zst", name),
			b.ours("run", "--id", "c", name, "/bin/sh", "-c", "echo 1 > /root/new; exec busybox sleep 100000"),
		} {
			if err := b.must(ctx, args...); err != nil {
				return err
			}
		}
		delta := b.path("delta.tar")
		s := b.race(ctx, []contender{{
			fmt.Sprintf("delta snapshot, root of %d MiB", mib), b.ours("commit", "c", "--delta", "-o", delta), nil,
		}})
		all = append(all, s[0])
		if info, err := os.Stat(delta); err == nil {
			b.report.Below(fmt.Sprintf("bytes of it, root of %d MiB", mib), float64(info.Size())/(1<<20), 1, "MiB")
		}
		for _, args := range [][]string{b.ours("rm", "-k", "c"), b.oursImage("rm", name), {"rm", "-f", tree + ".tar.zst", delta}} {
			if err := b.must(ctx, args...); err != nil {
				return err
			}
		}
	}
	b.report.Ratio("delta snapshot: root of 10 GiB / of 0.1 GiB", all[2], all[0], 1.5)
	return nil
}

// shell quotes arguments, which hold nothing that needs more than quotes.
func shell(args []string) (out string) {
	for _, a := range args {
		out += " '" + a + "'"
	}
	return out
}
