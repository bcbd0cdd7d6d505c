package openstack

import (
	"fmt"
	"strconv"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// FromEnvironment reads the variables that the stock client reads (OS_AUTH_URL,
// OS_USERNAME and so on), for commands that a user types. Public endpoints come
// first. errdefs.ErrInvalid: nothing says where the cloud is.
func FromEnvironment(getenv func(string) string) (Options, error) {
	o := Options{
		AuthURL: getenv("OS_AUTH_URL"), Username: getenv("OS_USERNAME"), UserID: getenv("OS_USER_ID"), Password: getenv("OS_PASSWORD"),
		UserDomainName: getenv("OS_USER_DOMAIN_NAME"), UserDomainID: getenv("OS_USER_DOMAIN_ID"),
		ProjectName: getenv("OS_PROJECT_NAME"), ProjectID: getenv("OS_PROJECT_ID"),
		ProjectDomainName: getenv("OS_PROJECT_DOMAIN_NAME"), ProjectDomainID: getenv("OS_PROJECT_DOMAIN_ID"),
		AppCredentialID: getenv("OS_APPLICATION_CREDENTIAL_ID"), AppCredentialSecret: getenv("OS_APPLICATION_CREDENTIAL_SECRET"),
		Region: getenv("OS_REGION_NAME"), Interfaces: []string{"public", "internal"},
		TLS: TLS{CAFile: getenv("OS_CACERT"), CertFile: getenv("OS_CERT"), KeyFile: getenv("OS_KEY")},
	}
	if o.AppCredentialID != "" {
		o.AuthType = "v3applicationcredential"
	}
	if i := getenv("OS_INTERFACE"); i != "" {
		o.Interfaces = []string{i}
	}
	o.TLS.Insecure, _ = strconv.ParseBool(getenv("OS_INSECURE"))
	if o.AuthURL == "" {
		hint := "OS_AUTH_URL is not set: source the file of your cloud's credentials"
		if name := getenv("OS_CLOUD"); name != "" {
			hint = fmt.Sprintf("OS_AUTH_URL is not set, and clouds.yaml (OS_CLOUD=%s) is not read: set OS_AUTH_URL, OS_USERNAME and the others", name)
		}
		return Options{}, errdefs.WithPublic(fmt.Errorf("environment: no OS_AUTH_URL: %w", errdefs.ErrInvalid), hint)
	}
	return o, nil
}
