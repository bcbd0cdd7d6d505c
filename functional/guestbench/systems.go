package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gantry-project/gantry/engine/api"
)

// system boots one guest at a time, with 512 MiB, a root of its own and a network
// of nothing but a loopback. All have user namespaces but podman's.
type system interface {
	name() string
	// prepare is not timed.
	prepare(ctx context.Context) error
	start(ctx context.Context) error
	// first is the guest's first process.
	first(ctx context.Context) (pid int, err error)
	remove(ctx context.Context) error
}

const guest = "guest"

// ours is the engine alone.
type ours struct {
	*bench
	engine *exec.Cmd
	client *api.Client
}

func (b *bench) startGantry(ctx context.Context) (*ours, error) {
	store := filepath.Join(b.work, "store")
	o := &ours{bench: b, engine: exec.Command(b.gantry, "engine", "--store-path", store, "--cgroup", "gantry-bench-guest", "--guest-view", "full")}
	o.engine.Stdout, o.engine.Stderr = b.log, b.log
	if err := o.engine.Start(); err != nil {
		return nil, err
	}
	o.client = api.NewClient(filepath.Join(store, api.SocketName))
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
		_, err := o.client.Info(ctx)
		return err == nil, nil
	})
	if err == nil {
		_, err = b.must(ctx, o.args("import", filepath.Join(b.work, "root.tar"), guest)...)
	}
	if err != nil {
		return nil, errors.Join(err, o.stop())
	}
	return o, nil
}

func (o *ours) args(args ...string) []string {
	return append([]string{o.gantry, args[0], "--store-path", filepath.Join(o.work, "store")}, args[1:]...)
}

func (o *ours) stop() error {
	if err := o.engine.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return o.engine.Wait()
}

func (*ours) name() string { return "gantry" }

func (*ours) prepare(context.Context) error { return nil }

func (o *ours) start(ctx context.Context) error {
	_, err := o.must(ctx, o.args("run", "--id", guest, "--memory", "512M", guest)...)
	return err
}

func (o *ours) first(ctx context.Context) (int, error) {
	c, err := o.client.Container(ctx, guest)
	return c.Pid, err
}

func (o *ours) remove(ctx context.Context) error {
	_, err := o.must(ctx, o.args("rm", "--kill", guest)...)
	return err
}

// podman with runc: its crun refuses control groups of both versions.
type podman struct{ *bench }

func (b *bench) startPodman(ctx context.Context) (podman, error) {
	p := podman{b}
	_, err := b.must(ctx, p.args("import", "-q", filepath.Join(b.work, "root.tar"), guest)...)
	return p, err
}

func (p podman) args(args ...string) []string {
	at := filepath.Join(p.work, "podman")
	return append([]string{
		"podman", "--root", at + "/root", "--runroot", at + "/run", "--tmpdir", at + "/tmp", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc",
	}, args...)
}

func (podman) name() string { return "podman --systemd" }

func (podman) prepare(context.Context) error { return nil }

func (p podman) start(ctx context.Context) error {
	_, err := p.must(ctx, p.args("run", "-d", "--name", guest, "--systemd=always", "--network", "none", "--memory", "512m", guest, "/sbin/init")...)
	return err
}

func (p podman) first(ctx context.Context) (int, error) {
	return number(p.must(ctx, p.args("inspect", "--format", "{{.State.Pid}}", guest)...))
}

func (p podman) remove(ctx context.Context) error {
	_, err := p.must(ctx, p.args("rm", "-f", "-t", "0", guest)...)
	return err
}

// lxc has no images: its root is a copy, which is made before the time begins.
type lxc struct{ *bench }

func (lxc) name() string { return "lxc-start" }

func (l lxc) prepare(ctx context.Context) error {
	at := filepath.Join(l.work, "lxc", guest)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if _, err := l.must(ctx, "cp", "-a", filepath.Join(l.work, "root"), filepath.Join(at, "rootfs")); err != nil {
		return err
	}
	config := fmt.Sprintf(`lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
lxc.idmap = u 0 2000000000 65536
lxc.idmap = g 0 2000000000 65536
lxc.rootfs.path = dir:%s/rootfs
lxc.rootfs.options = idmap=container
lxc.uts.name = guest
lxc.net.0.type = empty
lxc.cgroup.memory.limit_in_bytes = 512M
lxc.cgroup2.memory.max = 512M
lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed
`, at)
	return os.WriteFile(filepath.Join(at, "config"), []byte(config), 0o600)
}

func (l lxc) args(command string, more ...string) []string {
	return append([]string{command, "-P", filepath.Join(l.work, "lxc"), "-n", guest}, more...)
}

func (l lxc) start(ctx context.Context) error {
	_, err := l.must(ctx, l.args("lxc-start")...)
	return err
}

func (l lxc) first(ctx context.Context) (int, error) {
	return number(l.must(ctx, l.args("lxc-info", "-H", "-p")...))
}

func (l lxc) remove(ctx context.Context) error {
	_, err := l.must(ctx, l.args("lxc-stop", "-k")...)
	return errors.Join(err, os.RemoveAll(filepath.Join(l.work, "lxc", guest)))
}

func number(text string, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}
