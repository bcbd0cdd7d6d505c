package daemon

import (
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/neutron"
	"github.com/gantry-project/gantry/driver/placement"
	"github.com/gantry-project/gantry/glance"
	"github.com/gantry-project/gantry/internal/openstack"
)

// cloud are the REST services that a compute host talks to. Making it sends
// nothing.
type cloud struct {
	transports openstack.Transports
	neutron    *neutron.Client
	glance     *glance.Client
	placement  *placement.Reporter
	images     imageSource
}

func newCloud(cfg *config.Config, log zerolog.Logger) (*cloud, error) {
	c := &cloud{}
	var service *openstack.Session
	if cfg.ServiceUser.SendServiceUserToken {
		var err error
		if service, err = c.session("service_user", cfg.ServiceUser.Auth); err != nil {
			return nil, err
		}
	}
	network, err := c.session("neutron", cfg.Neutron.Auth)
	if err != nil {
		return nil, err
	}
	c.neutron = neutron.New(network.Service("network", service), neutron.Options{
		OVSBridge: cfg.Neutron.OVSBridge, ExtensionTTL: cfg.Neutron.ExtensionSyncInterval,
	}, log)
	images, err := c.session("glance", glanceAuth(cfg))
	if err != nil {
		return nil, err
	}
	c.glance = glance.New(images.Service("image", service), glance.Options{Tries: cfg.Glance.NumRetries + 1, UploadRate: cfg.Gantry.UploadRate}, log)
	c.images = imageSource{c.glance}
	resources, err := c.session("placement", cfg.Placement)
	if err != nil {
		return nil, err
	}
	c.placement = placement.New(resources.Service("placement", nil))
	return c, nil
}

// glanceAuth is [glance], with the first of its api_servers as its endpoint.
func glanceAuth(cfg *config.Config) config.Auth {
	a := cfg.Glance.Auth
	if a.EndpointOverride == "" && len(cfg.Glance.APIServers) > 0 {
		a.EndpointOverride = cfg.Glance.APIServers[0]
	}
	return a
}

func (c *cloud) session(section string, a config.Auth) (*openstack.Session, error) {
	s, err := openstack.NewSession(openstack.Options{
		AuthURL: a.AuthURL, AuthType: a.AuthType, Username: a.Username, UserID: a.UserID, Password: a.Password,
		UserDomainName: a.UserDomainName, UserDomainID: a.UserDomainID, ProjectName: a.ProjectName, ProjectID: a.ProjectID,
		ProjectDomainName: a.ProjectDomainName, ProjectDomainID: a.ProjectDomainID,
		AppCredentialID: a.AppCredentialID, AppCredentialSecret: a.AppCredentialKey,
		Region: a.RegionName, Interfaces: a.ValidInterfaces, EndpointOverride: a.EndpointOverride,
		TLS:     openstack.TLS{CAFile: a.CAFile, CertFile: a.CertFile, KeyFile: a.KeyFile, Insecure: a.Insecure},
		Timeout: a.Timeout, ConnectRetries: a.ConnectRetries,
	}, &c.transports)
	if err != nil {
		return nil, &config.Error{Section: section, Key: "auth_url and what belongs to it", Problem: err.Error()}
	}
	return s, nil
}

func (c *cloud) close() { c.transports.CloseIdle() }
