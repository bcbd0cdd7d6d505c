package openstack

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestFromEnvironment(t *testing.T) {
	from := func(env map[string]string) (Options, error) {
		return FromEnvironment(func(k string) string { return env[k] })
	}
	got, err := from(map[string]string{
		"OS_AUTH_URL": "http://c:5000/v3", "OS_USERNAME": "u", "OS_PASSWORD": "p", "OS_PROJECT_NAME": "x", "OS_USER_DOMAIN_ID": "default",
		"OS_CACERT": "/ca", "OS_INSECURE": "true", "OS_INTERFACE": "internal", "OS_REGION_NAME": "r",
	})
	want := Options{
		AuthURL: "http://c:5000/v3", Username: "u", Password: "p", ProjectName: "x", UserDomainID: "default",
		TLS: TLS{CAFile: "/ca", Insecure: true}, Interfaces: []string{"internal"}, Region: "r",
	}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v: %s", err, cmp.Diff(want, got))
	}
	got, err = from(map[string]string{"OS_AUTH_URL": "http://c", "OS_APPLICATION_CREDENTIAL_ID": "i", "OS_APPLICATION_CREDENTIAL_SECRET": "s"})
	if err != nil || got.AuthType != "v3applicationcredential" || got.check() != nil {
		t.Errorf("application credential: %+v, %v", got, err)
	}
	for _, env := range []map[string]string{{}, {"OS_CLOUD": "x"}} {
		if _, err := from(env); !errors.Is(err, errdefs.ErrInvalid) || errdefs.PublicText(err, "") == "" {
			t.Errorf("%v: %v", env, err)
		}
	}
}
