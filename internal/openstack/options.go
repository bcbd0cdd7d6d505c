package openstack

import (
	"fmt"
	"net/url"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Options are the keystoneauth options of one section, under their usual names
// (keystoneauth1/loading: identity, session and adapter options).
type Options struct {
	// AuthURL is the identity service, with or without /v3.
	AuthURL string
	// AuthType is password, v3password, v3applicationcredential or none. Empty
	// means password. With none no token is sent, and EndpointOverride must be set.
	AuthType string

	Username, UserID, Password   string
	UserDomainName, UserDomainID string
	ProjectName, ProjectID       string
	ProjectDomainName            string
	ProjectDomainID              string
	AppCredentialID              string // v3applicationcredential
	AppCredentialSecret          string

	// Region narrows the catalog; empty takes the first match.
	Region string
	// Interfaces are the kinds of endpoint, best first. Default: internal, public.
	Interfaces []string
	// ServiceType replaces the service type that a client asks for.
	ServiceType string
	// EndpointOverride is used instead of the catalog.
	EndpointOverride string

	TLS TLS

	// Timeout bounds one try of one request: connecting, and waiting for the
	// answer after the request is written. Default 60 s.
	Timeout time.Duration
	// ConnectRetries is how often a request is tried again. 0 means no second try.
	ConnectRetries int
}

// TLS says whom to trust and how to present oneself.
type TLS struct {
	CAFile, CertFile, KeyFile string
	Insecure                  bool
}

func (o Options) withDefaults() Options {
	if o.AuthType == "" {
		o.AuthType = "password"
	}
	if len(o.Interfaces) == 0 {
		o.Interfaces = []string{"internal", "public"}
	}
	if o.Timeout <= 0 {
		o.Timeout = 60 * time.Second
	}
	return o
}

// check refuses what can never work, before anything is sent.
func (o Options) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("openstack session: "+format+": %w", append(args, errdefs.ErrInvalid)...)
	}
	switch o.AuthType {
	case "none":
		if o.EndpointOverride == "" {
			return bad("auth_type none needs endpoint_override")
		}
	case "password", "v3password":
		if o.Username == "" && o.UserID == "" {
			return bad("username is missing")
		}
	case "v3applicationcredential":
		if o.AppCredentialID == "" || o.AppCredentialSecret == "" {
			return bad("application_credential_id and application_credential_secret are needed")
		}
	default:
		return bad("auth_type %q is not known; expected password, v3password or v3applicationcredential", o.AuthType)
	}
	for _, u := range []string{o.AuthURL, o.EndpointOverride} {
		p, err := url.Parse(u)
		if err != nil || (u != "" && (p.Host == "" || (p.Scheme != "http" && p.Scheme != "https"))) {
			return bad("%q is not an http or https URL", u)
		}
	}
	if o.AuthURL == "" && o.AuthType != "none" {
		return bad("auth_url is missing")
	}
	return nil
}

// credentials is the same in gophercloud's words.
func (o Options) credentials() *gophercloud.AuthOptions {
	if o.AuthType == "v3applicationcredential" {
		return &gophercloud.AuthOptions{
			ApplicationCredentialID:     o.AppCredentialID,
			ApplicationCredentialSecret: o.AppCredentialSecret,
		}
	}
	a := &gophercloud.AuthOptions{Username: o.Username, UserID: o.UserID, Password: o.Password}
	if o.UserID != "" {
		a.Username = ""
	} else if a.DomainID = o.UserDomainID; a.DomainID == "" {
		a.DomainName = o.UserDomainName
	}
	switch {
	case o.ProjectID != "":
		a.Scope = &gophercloud.AuthScope{ProjectID: o.ProjectID}
	case o.ProjectName != "":
		a.Scope = &gophercloud.AuthScope{ProjectName: o.ProjectName, DomainID: o.ProjectDomainID}
		if o.ProjectDomainID == "" {
			a.Scope.DomainName = o.ProjectDomainName
		}
	}
	return a
}
