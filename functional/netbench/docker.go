package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gantry-project/gantry/netbridge/netns"
)

// docker is a daemon of our own, asked on its socket.
type docker struct {
	client  *http.Client
	process *exec.Cmd
	outside *os.File
}

type object = map[string]any

const image, network = "bench:latest", "bench"

// newDocker starts a daemon in this namespace, with an image and a network.
func newDocker(ctx context.Context, work string) (*docker, error) {
	d := &docker{}
	var err error
	if d.outside, err = world(nil); err != nil {
		return nil, err
	}
	socket := filepath.Join(work, "docker.sock")
	log, err := os.OpenFile(filepath.Join(work, "docker.log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d.process = exec.CommandContext(ctx, "dockerd", "--data-root", work+"/docker", "--exec-root", work+"/exec", "--pidfile", work+"/docker.pid",
		"-H", "unix://"+socket, "--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2")
	d.process.Stdout, d.process.Stderr = log, log
	if err := d.process.Start(); err != nil {
		return nil, fmt.Errorf("start docker: %w", err)
	}
	d.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	if err := d.await(ctx); err != nil {
		return d, err
	}
	root := filepath.Join(work, "root")
	if err := d.load(ctx, root); err != nil {
		return d, err
	}
	return d, d.ask(ctx, "/networks/create", object{"Name": network, "IPAM": object{"Config": []object{{"Subnet": "10.9.0.0/16"}}}}, nil)
}

// load makes the image: a program that sleeps.
func (d *docker) load(ctx context.Context, root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	box, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(box)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "sleep"), data, 0o755); err != nil { //nolint:gosec // is run
		return err
	}
	tar, err := exec.CommandContext(ctx, "tar", "-C", root, "-c", ".").Output()
	if err != nil {
		return err
	}
	return d.ask(ctx, "/images/create?fromSrc=-&repo=bench&tag=latest", bytes.NewReader(tar), nil)
}

func (d *docker) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if d.ask(ctx, "/_ping", nil, nil) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("docker does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// ask is a request; without a body it only looks.
func (d *docker) ask(ctx context.Context, path string, in, out any) error {
	method, kind := http.MethodPost, "application/json"
	var body io.Reader
	switch v := in.(type) {
	case nil:
		method = http.MethodGet
	case io.Reader:
		body, kind = v, "application/x-tar"
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", kind)
	res, err := d.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("docker: %s: %d: %s", path, res.StatusCode, bytes.TrimSpace(text))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// run starts a container on the default bridge, and returns its id.
func (d *docker) run(ctx context.Context) (string, error) {
	var made struct{ ID string }
	if err := d.ask(ctx, "/containers/create", object{"Image": image, "Cmd": []string{"/sleep", "1000000"}}, &made); err != nil {
		return "", err
	}
	return made.ID, d.ask(ctx, "/containers/"+made.ID+"/start", object{}, nil)
}

func (d *docker) connect(ctx context.Context, id string) error {
	return d.ask(ctx, "/networks/"+network+"/connect", object{"Container": id}, nil)
}

func (d *docker) disconnect(ctx context.Context, id string) error {
	return d.ask(ctx, "/networks/"+network+"/disconnect", object{"Container": id}, nil)
}

// guest is a container on the default bridge.
func (d *docker) guest(ctx context.Context) (*guest, error) {
	id, err := d.run(ctx)
	if err != nil {
		return nil, err
	}
	var seen struct {
		State           struct{ Pid int }
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := d.ask(ctx, "/containers/"+id+"/json", nil, &seen); err != nil {
		return nil, err
	}
	g := &guest{id: id}
	if g.ip, err = netip.ParseAddr(seen.NetworkSettings.Networks["bridge"].IPAddress); err != nil {
		return nil, err
	}
	g.ns, err = netns.Open(fmt.Sprintf("/proc/%d/ns/net", seen.State.Pid))
	return g, err
}

// stop ends the daemon, and with it all there is: this is its own world.
func (d *docker) stop() {
	_ = d.process.Process.Kill()
	_ = d.process.Wait()
}
