package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
)

const (
	// pollEvery is how often a server is asked for.
	pollEvery = 2 * time.Millisecond
	// waitLimit bounds all waiting.
	waitLimit = 2 * time.Minute
)

// client is a user of the cloud, with what its servers are made of.
type client struct {
	compute, image, network, identity, placement *gophercloud.ServiceClient

	imageID, networkID string
}

func login(ctx context.Context, url, user, password string) (*client, error) {
	provider, err := openstack.AuthenticatedClient(ctx, gophercloud.AuthOptions{
		IdentityEndpoint: url + "/identity/v3", Username: user, Password: password, DomainID: "default",
		Scope: &gophercloud.AuthScope{ProjectName: user, DomainID: "default"},
	})
	if err != nil {
		return nil, fmt.Errorf("log in as %s: %w", user, err)
	}
	c, eo := &client{}, gophercloud.EndpointOpts{Region: "RegionOne"}
	var errs [5]error
	c.compute, errs[0] = openstack.NewComputeV2(provider, eo)
	c.image, errs[1] = openstack.NewImageV2(provider, eo)
	c.network, errs[2] = openstack.NewNetworkV2(provider, eo)
	c.identity, errs[3] = openstack.NewIdentityV3(provider, eo)
	c.placement, errs[4] = openstack.NewPlacementV1(provider, eo)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	c.compute.Microversion, c.placement.Microversion = "2.93", "1.39"
	return c, nil
}

// find looks for the image and the network that a new cloud has.
func (c *client) find(ctx context.Context) error {
	pages, err := images.List(c.image, images.ListOpts{Name: "busybox"}).AllPages(ctx)
	if err != nil {
		return err
	}
	list, err := images.ExtractImages(pages)
	if err != nil || len(list) != 1 {
		return errors.Join(err, fmt.Errorf("%d images are named busybox", len(list)))
	}
	c.imageID = list[0].ID
	pages, err = networks.List(c.network, networks.ListOpts{Name: "private"}).AllPages(ctx)
	if err != nil {
		return err
	}
	nets, err := networks.ExtractNetworks(pages)
	if err != nil || len(nets) != 1 {
		return errors.Join(err, fmt.Errorf("%d networks are named private", len(nets)))
	}
	c.networkID = nets[0].ID
	return nil
}

// flavor makes one.
func (c *client) flavor(ctx context.Context, name string, ram int) (string, error) {
	f, err := flavors.Create(ctx, c.compute, flavors.CreateOpts{Name: name, RAM: ram, VCPUs: 1, Disk: new(1)}).Extract()
	if err != nil {
		return "", fmt.Errorf("create flavor %s: %w", name, err)
	}
	return f.ID, nil
}

// prepare gives a project room for so many servers, and the host too: what a
// host with two processors takes by itself are 32 virtual ones.
func (c *client) prepare(ctx context.Context, project string) error {
	quota := map[string]any{"quota_set": map[string]any{"instances": -1, "cores": -1, "ram": -1}}
	if err := c.put(ctx, c.compute, "os-quota-sets/"+project, quota); err != nil {
		return err
	}
	if err := c.put(ctx, c.network, "quotas/"+project, map[string]any{"quota": map[string]any{"port": -1}}); err != nil {
		return err
	}
	var providers struct {
		List []struct{ UUID string } `json:"resource_providers"`
	}
	if err := c.get(ctx, c.placement, "resource_providers", &providers); err != nil {
		return err
	}
	for _, p := range providers.List {
		at := "resource_providers/" + p.UUID + "/inventories/VCPU"
		var inventory map[string]any
		if err := c.get(ctx, c.placement, at, &inventory); err != nil {
			return err
		}
		inventory["allocation_ratio"] = 1000
		if err := c.put(ctx, c.placement, at, inventory); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) get(ctx context.Context, service *gophercloud.ServiceClient, path string, out any) error {
	resp, err := service.Get(ctx, service.ServiceURL(path), out, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (c *client) put(ctx context.Context, service *gophercloud.ServiceClient, path string, in any) error {
	var out json.RawMessage
	resp, err := service.Put(ctx, service.ServiceURL(path), in, &out, &gophercloud.RequestOpts{OkCodes: []int{http.StatusOK}})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// create asks for servers; the id is that of the first.
func (c *client) create(ctx context.Context, name, flavor string, count int) (string, error) {
	s, err := servers.Create(ctx, c.compute, servers.CreateOpts{
		Name: name, ImageRef: c.imageID, FlavorRef: flavor, Networks: []servers.Network{{UUID: c.networkID}}, Min: count, Max: count,
	}, nil).Extract()
	if err != nil {
		return "", fmt.Errorf("create server %s: %w", name, err)
	}
	return s.ID, nil
}

// active returns when the server is.
func (c *client) active(ctx context.Context, id string) error {
	return until(ctx, func() (bool, error) {
		s, err := servers.Get(ctx, c.compute, id).Extract()
		if err == nil && s.Status == "ERROR" {
			err = fmt.Errorf("server %s is in error: %s", id, s.Fault.Message)
		}
		return err == nil && s.Status == "ACTIVE", err
	})
}

// plugged says how many ports of the server are up, with security groups.
func (c *client) plugged(ctx context.Context, id string) (int, error) {
	pages, err := ports.List(c.network, ports.ListOpts{DeviceID: id}).AllPages(ctx)
	if err != nil {
		return 0, err
	}
	list, err := ports.ExtractPorts(pages)
	n := 0
	for _, p := range list {
		if p.Status == "ACTIVE" && len(p.SecurityGroups) > 0 {
			n++
		}
	}
	return n, err
}

// delete returns when the server is gone.
func (c *client) delete(ctx context.Context, id string) error {
	if err := servers.Delete(ctx, c.compute, id).ExtractErr(); err != nil {
		return fmt.Errorf("delete server %s: %w", id, err)
	}
	return until(ctx, func() (bool, error) {
		_, err := servers.Get(ctx, c.compute, id).Extract()
		if gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			return true, nil
		}
		return false, err
	})
}

// counted is how many servers of the project are in that status.
func (c *client) counted(ctx context.Context, status string) (int, error) {
	var out struct {
		Servers []struct{} `json:"servers"`
	}
	err := c.get(ctx, c.compute, "servers?limit=1000&status="+status, &out)
	return len(out.Servers), err
}

// until asks every pollEvery.
func until(ctx context.Context, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
