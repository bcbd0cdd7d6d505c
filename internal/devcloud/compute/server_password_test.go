package compute

import (
	"testing"

	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

func TestServerPassword(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "sealed", r.flavor("tiny"))
	path := "/v2.1/servers/" + id + "/os-server-password"
	r.ask("demo", "2.93", "GET", path, nil).is(200).has("", "password")
	put := func() {
		t.Helper()
		_, err := r.cell.UpdateInstance(t.Context(), id, cell.Expect{}, func(i objects.Instance) error {
			i.Set("task_state", "powering-off") // minds nobody
			return metadata.PutPassword(i, "b64==")
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put()
	r.ask("demo", "2.1", "GET", path, nil).is(200).has("b64==", "password")
	r.ask("other", "2.93", "DELETE", path, nil).is(404)
	r.ask("demo", "2.93", "GET", path, nil).has("b64==", "password")
	for range 2 {
		r.ask("demo", "2.93", "DELETE", path, nil).is(204)
		r.ask("demo", "2.93", "GET", path, nil).is(200).has("", "password")
	}
	r.ask("demo", "2.93", "DELETE", "/v2.1/servers/no/os-server-password", nil).is(404)
}
