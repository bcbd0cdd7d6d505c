//go:build functional

package placement_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/gantry-project/gantry/internal/openstack"
)

// TestRealPlacement runs the suite against the placement service of the cloud
// that the usual OS_ variables name. It makes providers of its own and leaves
// none behind.
func TestRealPlacement(t *testing.T) {
	session, err := openstack.NewSession(openstack.Options{
		AuthURL: os.Getenv("OS_AUTH_URL"), Username: os.Getenv("OS_USERNAME"), Password: os.Getenv("OS_PASSWORD"),
		ProjectName: os.Getenv("OS_PROJECT_NAME"), UserDomainID: "default", ProjectDomainID: "default",
		Interfaces: []string{"internal", "public"},
	}, nil)
	if err != nil {
		t.Fatalf("source the credentials of an administrator first: %v", err)
	}
	client := session.Service("placement", nil)
	t.Cleanup(func() {
		w := world{client, nil}
		ctx := context.WithoutCancel(t.Context())
		var made traitDoc
		err := w.try(ctx, "GET", "/traits?name=startswith:CUSTOM_GANTRY_TEST_", nil, &made)
		for _, name := range made.Traits {
			err = errors.Join(err, w.try(ctx, "DELETE", "/traits/"+name, nil, nil))
		}
		if err != nil {
			t.Error(err)
		}
	})
	suite(t, client)
}
