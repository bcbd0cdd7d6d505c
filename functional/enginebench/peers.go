package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// peers are the other engines of the run, with their state below work.
type peers struct {
	work    string
	log     *os.File
	spawner *spawner
	docker  *exec.Cmd
}

// peerImage is the image of busybox in docker and podman.
const peerImage = "bb"

// startPeers brings up docker, makes the peers' image and their bundles.
func startPeers(ctx context.Context, work string, log *os.File) (*peers, error) {
	p := &peers{work: work, log: log}
	root := filepath.Join(work, "bb")
	if err := rootfs(root); err != nil {
		return nil, fmt.Errorf("make root directory: %w", err)
	}
	if err := mountBundle(work, root); err != nil {
		return nil, err
	}
	var err error
	if p.spawner, err = newSpawner(log); err != nil {
		return nil, err
	}
	if _, err := p.spawner.spawn("true"); err != nil { // it is in its namespace now
		return p, err
	}
	args := p.spawner.inside("dockerd", "--data-root", work+"/docker", "--exec-root", work+"/exec", "--pidfile", work+"/docker.pid",
		"-H", "unix://"+p.socket(), "--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2")
	p.docker = exec.Command(args[0], args[1:]...)
	p.docker.Stdout, p.docker.Stderr = log, log
	if err := p.docker.Start(); err != nil {
		return nil, fmt.Errorf("start docker: %w", err)
	}
	if err := p.await(ctx); err != nil {
		return p, err
	}
	image := filepath.Join(work, "bb.tar")
	for _, args := range [][]string{
		{"tar", "-C", root, "-cf", image, "."},
		p.dockerArgs("import", "-c", `CMD ["sh"]`, image, peerImage+":latest"),
		p.podmanArgs("import", "-c", `CMD ["sh"]`, image, peerImage+":latest"),
	} {
		if err := p.spawner.run(args...); err != nil {
			return p, err
		}
	}
	config, err := p.dockerConfig()
	if err != nil {
		return p, err
	}
	return p, bundles(work, config)
}

func (p *peers) socket() string { return filepath.Join(p.work, "docker.sock") }

// await returns when docker answers.
func (p *peers) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		args := p.dockerArgs("version")
		if exec.CommandContext(ctx, args[0], args[1:]...).Run() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("docker does not answer")
		case <-tick.C:
		}
	}
}

func (p *peers) dockerArgs(args ...string) []string {
	return append([]string{"docker", "-H", "unix://" + p.socket()}, args...)
}

func (p *peers) podmanArgs(args ...string) []string {
	return append([]string{
		"podman", "--root", p.work + "/podman/root", "--runroot", p.work + "/podman/run", "--tmpdir", p.work + "/podman/tmp",
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "crun",
	}, args...)
}

// dockerConfig is the file in which docker has written down one container for
// its runtime.
func (p *peers) dockerConfig() (string, error) {
	args := p.dockerArgs("run", "-d", "--network", "none", "--name", "config", peerImage, "sleep", "1000")
	if err := p.spawner.run(args...); err != nil {
		return "", err
	}
	var found string
	err := filepath.WalkDir(filepath.Join(p.work, "exec"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "config.json" && strings.Contains(path, "moby") {
			found = path
		}
		return nil // what cannot be entered does not matter
	})
	if err == nil && found == "" {
		err = errors.New("docker's configuration of a container was not found")
	}
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(found)
	if err != nil {
		return "", err
	}
	copied := filepath.Join(p.work, "docker-config.json")
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		return "", err
	}
	args = p.dockerArgs("rm", "-f", "config")
	return copied, p.spawner.run(args...)
}

// stop ends docker; what it ran ends with the pid namespace.
func (p *peers) stop() {
	if p == nil || p.docker == nil || p.docker.Process == nil {
		return
	}
	_ = p.docker.Process.Signal(os.Interrupt)
	_ = p.docker.Wait()
}
