package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// newer is a conductor of a release in which Service has another major version.
type newer struct{ backports int }

func (n *newer) Call(_ context.Context, _ messaging.RequestContext, _ messaging.Target, method string, args map[string]any, result any) error {
	version := "2.0"
	if method == "object_backport_versions" {
		n.backports++
		version = args["object_versions"].(map[string]string)["Service"]
	}
	o := &objects.Object{Name: "Service", Version: version}
	o.SetClean("host", "cmp1")
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, result)
}

func (n *newer) Cast(context.Context, messaging.RequestContext, messaging.Target, string, map[string]any) error {
	return nil
}

func TestBackportOnlyForAnotherMajor(t *testing.T) {
	n := &newer{}
	c := New(n, "cmp1")
	s, err := c.GetService(t.Context(), messaging.AdminContext(), "cmp1", "nova-compute")
	if err != nil || n.backports != 1 || s.Version != "1.22" || s.String("host") != "cmp1" {
		t.Errorf("%v %v, %d backports", s, err, n.backports)
	}
	_, err = c.Backport(t.Context(), messaging.AdminContext(), &objects.Object{Name: "ShareMapping", Version: "1.0"})
	if _, ok := errors.AsType[*objects.VersionError](err); !ok || n.backports != 1 {
		t.Errorf("an unknown object: %v", err)
	}
}
