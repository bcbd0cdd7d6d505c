package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
)

const (
	// bootLimit bounds a boot and a delete.
	bootLimit = 2 * time.Minute
	// pollEvery is how often the API is asked for what is waited for.
	pollEvery = 20 * time.Millisecond
)

// cloud is the control plane as its administrator uses it.
type cloud struct {
	compute, image, network *gophercloud.ServiceClient
	flavorID, networkID     string
}

func login(ctx context.Context, pass string) (*cloud, error) {
	provider, err := openstack.AuthenticatedClient(ctx, gophercloud.AuthOptions{
		IdentityEndpoint: "http://127.0.0.1:5000/v3", Username: "admin", Password: pass,
		TenantName: "admin", DomainID: "default", AllowReauth: true,
	})
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	c, eo := &cloud{}, gophercloud.EndpointOpts{Region: "RegionOne"}
	if c.compute, err = openstack.NewComputeV2(provider, eo); err != nil {
		return nil, err
	}
	c.compute.Microversion = "2.92"
	if c.image, err = openstack.NewImageV2(provider, eo); err != nil {
		return nil, err
	}
	if c.network, err = openstack.NewNetworkV2(provider, eo); err != nil {
		return nil, err
	}
	return c, errors.Join(c.findFlavor(ctx, "c1.tiny"), c.findNetwork(ctx, "private-admin"))
}

func (c *cloud) findFlavor(ctx context.Context, name string) error {
	pages, err := flavors.ListDetail(c.compute, nil).AllPages(ctx)
	if err != nil {
		return err
	}
	list, err := flavors.ExtractFlavors(pages)
	for _, f := range list {
		if f.Name == name {
			c.flavorID = f.ID
			return nil
		}
	}
	return errors.Join(err, fmt.Errorf("no flavor %s", name))
}

func (c *cloud) findNetwork(ctx context.Context, name string) error {
	pages, err := networks.List(c.network, networks.ListOpts{Name: name}).AllPages(ctx)
	if err != nil {
		return err
	}
	list, err := networks.ExtractNetworks(pages)
	if err != nil || len(list) == 0 {
		return errors.Join(err, fmt.Errorf("no network %s", name))
	}
	c.networkID = list[0].ID
	return nil
}

// imageID finds an image by name; "" when there is none.
func (c *cloud) imageID(ctx context.Context, name string) (string, error) {
	pages, err := images.List(c.image, images.ListOpts{Name: name}).AllPages(ctx)
	if err != nil {
		return "", err
	}
	list, err := images.ExtractImages(pages)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0].ID, nil
}

// quietImage uploads the small system of the functional tests with a first
// process that only sleeps: what guests do by themselves is not the service's
// cost, and must not be counted with it.
func (c *cloud) quietImage(ctx context.Context, state string) (string, error) {
	const name = "bench-quiet"
	if id, err := c.imageID(ctx, name); id != "" || err != nil {
		return id, err
	}
	from, err := os.Open(filepath.Join(state, "images/busybox.tar"))
	if err != nil {
		return "", err
	}
	defer from.Close()
	var quiet bytes.Buffer
	if err := quieten(&quiet, from); err != nil {
		return "", err
	}
	made, err := images.Create(ctx, c.image, images.CreateOpts{Name: name, DiskFormat: "raw", ContainerFormat: "bare"}).Extract()
	if err != nil {
		return "", fmt.Errorf("create image %s: %w", name, err)
	}
	return made.ID, imagedata.Upload(ctx, c.image, made.ID, &quiet).ExtractErr()
}

// quieten copies an archive with another /sbin/init.
func quieten(to io.Writer, from io.Reader) error {
	const program = "#!/bin/sh\nexec /bin/sleep 1000000\n"
	r, w := tar.NewReader(from), tar.NewWriter(to)
	replaced := false
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var body io.Reader = r
		if filepath.Clean("/"+h.Name) == "/sbin/init" {
			replaced, h.Size, body = true, int64(len(program)), bytes.NewReader([]byte(program))
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, body); err != nil {
			return err
		}
	}
	if !replaced {
		return errors.New("no /sbin/init in the archive")
	}
	return w.Close()
}

// onHost asks for a host, which gophercloud's options cannot (compute API 2.74).
type onHost struct {
	servers.CreateOpts
	host string
}

// ToServerCreateMap implements servers.CreateOptsBuilder.
func (o onHost) ToServerCreateMap() (map[string]any, error) {
	m, err := o.CreateOpts.ToServerCreateMap()
	if err != nil {
		return nil, err
	}
	server, ok := m["server"].(map[string]any)
	if !ok {
		return nil, errors.New("the request has no server")
	}
	server["host"] = o.host
	return m, nil
}

// boot creates a server on the host and returns when the API lists it as ACTIVE.
func (c *cloud) boot(ctx context.Context, name, host, image string) (id string, posted, active time.Time, err error) {
	posted = time.Now()
	s, err := servers.Create(ctx, c.compute, onHost{servers.CreateOpts{
		Name: name, ImageRef: image, FlavorRef: c.flavorID, Networks: []servers.Network{{UUID: c.networkID}},
	}, host}, nil).Extract()
	if err != nil {
		return "", posted, posted, fmt.Errorf("create server: %w", err)
	}
	polls := 0
	err = until(ctx, bootLimit, pollEvery, func() (bool, error) {
		if polls++; polls%50 == 0 {
			if full, err := servers.Get(ctx, c.compute, s.ID).Extract(); err == nil && full.Status == "ERROR" {
				return false, fmt.Errorf("server is in error: %s: %.500s", full.Fault.Message, full.Fault.Details)
			}
		}
		n, err := c.listed(ctx, s.ID, "&status=ACTIVE")
		return n > 0, err
	})
	if err != nil {
		err = fmt.Errorf("boot on %s: %w", host, err)
	}
	return s.ID, posted, time.Now(), err
}

// remove deletes the server and returns when the API does not list it any more.
func (c *cloud) remove(ctx context.Context, id string) (time.Duration, error) {
	began := time.Now()
	if err := servers.Delete(ctx, c.compute, id).ExtractErr(); err != nil {
		if gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			return time.Since(began), nil
		}
		return 0, fmt.Errorf("delete server %s: %w", id, err)
	}
	err := until(ctx, bootLimit, pollEvery, func() (bool, error) {
		n, err := c.listed(ctx, id, "")
		return n == 0, err
	})
	return time.Since(began), err
}

// listed asks for the short listing: the detailed one asks Neutron each time,
// which would load what is measured.
func (c *cloud) listed(ctx context.Context, id, more string) (int, error) {
	var out struct {
		Servers []struct{} `json:"servers"`
	}
	resp, err := c.compute.Get(ctx, c.compute.ServiceURL("servers")+"?uuid="+id+more, &out, nil)
	if err != nil {
		return 0, err
	}
	return len(out.Servers), resp.Body.Close()
}
