package devcloud

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// furnish gives a new cloud something to begin with, once: what somebody has
// deleted does not come back.
func (c *Cloud) furnish(ctx context.Context) error {
	marker := c.path("furnished")
	if _, err := os.Stat(marker); err == nil {
		return nil
	}
	door := inside{c.mux}
	token, err := door.login(ctx, "admin", c.passwords.Admin, "admin")
	if err != nil {
		return fmt.Errorf("furnish the cloud: %w", err)
	}
	if err := (&seeder{door, token}).seed(ctx, c.o.Busybox); err != nil {
		return fmt.Errorf("furnish the cloud: %w", err)
	}
	return atomicfile.Write(marker, nil, 0o600)
}

// seeder makes what a new cloud has, as its administrator would: by requests.
type seeder struct {
	inside
	token string
}

// ask makes a request as the administrator.
func (s *seeder) ask(ctx context.Context, method, path string, in, out any) error {
	_, err := s.inside.ask(ctx, s.token, method, path, in, out)
	return err
}

// seed makes flavors, networks and an image. What is there stays as it is.
func (s *seeder) seed(ctx context.Context, busybox string) error {
	for _, f := range []struct {
		id, name         string
		vcpus, ram, disk int
	}{{"1", "m1.tiny", 1, 128, 1}, {"2", "m1.small", 1, 512, 5}, {"3", "m1.medium", 2, 1024, 10}, {"4", "m1.large", 4, 4096, 20}} {
		err := s.ask(ctx, http.MethodPost, "/compute/v2.1/flavors", object{"flavor": object{
			"id": f.id, "name": f.name, "vcpus": f.vcpus, "ram": f.ram, "disk": f.disk,
		}}, nil)
		if err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
			return err
		}
	}
	if err := s.networks(ctx); err != nil {
		return err
	}
	return s.image(ctx, busybox)
}

// exists looks for something by its name.
func (s *seeder) exists(ctx context.Context, path, plural, name string) (id string, err error) {
	var out map[string]json.RawMessage
	if err := s.ask(ctx, http.MethodGet, path+"?name="+name, nil, &out); err != nil {
		return "", err
	}
	var list []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(out[plural], &list); err != nil || len(list) == 0 {
		return "", err
	}
	return list[0].ID, nil
}

// make makes one thing of the network service, unless one of that name is there.
func (s *seeder) make(ctx context.Context, kind string, fields object) (id string, err error) {
	path := "/network/v2.0/" + kind + "s"
	name, _ := fields["name"].(string)
	if id, err = s.exists(ctx, path, kind+"s", name); err != nil || id != "" {
		return id, err
	}
	var out map[string]struct {
		ID string `json:"id"`
	}
	err = s.ask(ctx, http.MethodPost, path, object{kind: fields}, &out)
	return out[kind].ID, err
}

// networks makes "public", which leads out, and "private" for all projects, and
// a router between them.
func (s *seeder) networks(ctx context.Context) error {
	public, err := s.make(ctx, "network", object{"name": "public", "router:external": true})
	if err != nil {
		return err
	}
	if _, err := s.make(ctx, "subnet", object{
		"name": "public-subnet", "network_id": public, "ip_version": 4, "cidr": "172.24.4.0/24", "enable_dhcp": false,
	}); err != nil {
		return err
	}
	private, err := s.make(ctx, "network", object{"name": "private", "shared": true})
	if err != nil {
		return err
	}
	subnet, err := s.make(ctx, "subnet", object{"name": "private-subnet", "network_id": private, "ip_version": 4, "cidr": "10.0.0.0/22"})
	if err != nil {
		return err
	}
	router, err := s.make(ctx, "router", object{"name": "router", "external_gateway_info": object{"network_id": public}})
	if err != nil {
		return err
	}
	// refused when it is there already
	err = s.ask(ctx, http.MethodPut, "/network/v2.0/routers/"+router+"/add_router_interface", object{"subnet_id": subnet}, nil)
	if err != nil && !strings.Contains(err.Error(), "already has") {
		return err
	}
	return nil
}

// image uploads a root file system with busybox, if there is one.
func (s *seeder) image(ctx context.Context, busybox string) error {
	if busybox == "" {
		return nil
	}
	if id, err := s.exists(ctx, "/image/v2/images", "images", "busybox"); err != nil || id != "" {
		return err
	}
	root, err := busyboxRoot(busybox)
	if err != nil {
		return err
	}
	var made struct {
		ID string `json:"id"`
	}
	if err := s.ask(ctx, http.MethodPost, "/image/v2/images", object{
		"name": "busybox", "container_format": "bare", "disk_format": "raw", "visibility": "public",
	}, &made); err != nil {
		return err
	}
	return s.ask(ctx, http.MethodPut, "/image/v2/images/"+made.ID+"/file", bytes.NewReader(root), nil)
}

// applets are the commands of the image.
const applets = `sh ash cat chgrp chmod chown clear cp cut date dd df dmesg du echo env expr false find free grep gunzip gzip head hostname
	id ifconfig init ip kill killall less ln ls mkdir mkfifo mknod more mount mv nc netstat nslookup ping ping6 pkill poweroff printf ps pwd
	reboot rm rmdir route sed seq sleep sort stat stty sync tail tar tee test time top touch tr traceroute true tty umount uname uniq uptime
	vi watch wc wget which who whoami xargs yes udhcpc httpd halt nproc`

const inittab = `::sysinit:/etc/rc
console::respawn:-/bin/sh +m
::shutdown:/bin/true
`

const rc = `#!/bin/sh
echo "this is $(hostname), a container on $(uname -s) $(uname -r)"
ip -o address show scope global | while read -r _ device _ address _; do echo "$device has $address"; done
`

// busyboxRoot is a root file system whose init is the static busybox in the
// file.
func busyboxRoot(file string) ([]byte, error) {
	program, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	var failed error
	add := func(h tar.Header, content []byte) {
		h.Size, h.ModTime, h.Format = int64(len(content)), time.Unix(0, 0), tar.FormatPAX
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write(content)
		}
		failed = errors.Join(failed, err)
	}
	for _, dir := range []string{"bin", "sbin", "etc", "root", "var", "home", "usr", "usr/bin", "dev", "proc", "sys", "run"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
	for name := range strings.FieldsSeq(applets) {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "sbin/init", Linkname: "../bin/busybox", Mode: 0o777}, nil)
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/inittab": inittab,
		"etc/profile": "export PATH=/bin:/sbin:/usr/bin PS1='\\h:\\w\\$ '\n",
	} {
		add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, []byte(text))
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/rc", Mode: 0o755}, []byte(rc))
	if err := errors.Join(failed, w.Close()); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return out.Bytes(), nil
}
