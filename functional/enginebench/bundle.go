package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// rootfs makes a root directory whose programs are busybox's.
func rootfs(dir string) error {
	for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "tmp", "root", "var"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), binary, 0o755); err != nil {
		return err
	}
	names, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(names)) {
		if name == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for name, text := range map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// bundles writes the peers' bundles: docker's own configuration of a container
// (seccomp profile, capabilities, masked paths, devices) without its hook and
// bind mounts, over an overlay of the root directory, with limits. They are
// named by the command that they run.
func bundles(work, docker string) error {
	text, err := os.ReadFile(docker)
	if err != nil {
		return err
	}
	merged := filepath.Join(work, "bundle/rootfs")
	for name, args := range map[string][]string{"true": {"/bin/true"}, "sleep": {"/bin/sleep", "1000000"}} {
		spec, err := peerSpec(text, merged, args)
		if err != nil {
			return err
		}
		dir := filepath.Join(work, "bundle", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), spec, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// mountBundle mounts the root of the bundles, for all who run them.
func mountBundle(work, rootfs string) error {
	upper, scratch, merged := filepath.Join(work, "bundle/up"), filepath.Join(work, "bundle/wk"), filepath.Join(work, "bundle/rootfs")
	for _, d := range []string{upper, scratch, merged} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return run("mount", "-t", "overlay", "overlay", "-o", fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", rootfs, upper, scratch), merged)
}

func peerSpec(docker []byte, merged string, args []string) ([]byte, error) {
	var s specs.Spec
	if err := json.Unmarshal(docker, &s); err != nil {
		return nil, err
	}
	s.Hooks, s.Root, s.Hostname = nil, &specs.Root{Path: merged}, "bench"
	var mounts []specs.Mount
	for _, m := range s.Mounts {
		if m.Type != "bind" {
			mounts = append(mounts, m)
		}
	}
	s.Mounts = mounts
	s.Process.Args, s.Process.Terminal, s.Process.NoNewPrivileges, s.Process.Cwd = args, false, true, "/"
	s.Linux.Namespaces = nil
	for _, kind := range []specs.LinuxNamespaceType{"mount", "network", "uts", "pid", "ipc", "cgroup"} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
	}
	memory, pids, shares := int64(256<<20), int64(512), uint64(512)
	r := s.Linux.Resources
	r.BlockIO, r.Memory = nil, &specs.LinuxMemory{Limit: &memory}
	r.CPU = &specs.LinuxCPU{Shares: &shares}
	s.Linux.CgroupsPath = ""
	// the type of the limit has changed between versions of the specification
	out, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var whole map[string]any
	if err := json.Unmarshal(out, &whole); err != nil {
		return nil, err
	}
	whole["linux"].(map[string]any)["resources"].(map[string]any)["pids"] = map[string]any{"limit": pids}
	return json.Marshal(whole)
}
