package compute

import (
	"testing"

	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

// A rescue gives its password, tells the host, and takes only images that are
// there; what a rescued server can do is Nova's to say.
func TestRescue(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "a", r.flavor("tiny"))
	path := "/v2.1/servers/" + id
	r.ask("demo", "2.93", "POST", path+"/action", `{"unrescue": null}`).
		says(409, "Cannot 'unrescue' instance "+id+" while it is in vm_state active")
	r.ask("demo", "2.93", "POST", path+"/action", `{"rescue": {"rescue_image_ref": "`+privateNet+`"}}`).
		says(400, "Requested rescue image '"+privateNet+"' is not supported")
	r.ask("demo", "2.93", "POST", path+"/action", `{"rescue": {"adminPass": "secret", "rescue_image_ref": "`+activeImage+`"}}`).
		is(200).has("secret", "adminPass")
	r.ask("demo", "2.93", "GET", path, nil).is(200).has("rescuing", "server", "OS-EXT-STS:task_state")
	for {
		if told := <-r.host.told; told == "rescue_instance" {
			break
		}
	}
	if _, err := r.cell.SetInstance(t.Context(), id, cell.Expect{}, map[string]any{"vm_state": "rescued", "task_state": nil}); err != nil {
		t.Fatal(err)
	}
	r.ask("demo", "2.93", "GET", path, nil).is(200).has("RESCUE", "server", "status")
	for _, body := range []string{`{"os-stop": null}`, `{"reboot": {"type": "HARD"}}`, `{"pause": null}`, `{"createImage": {"name": "x"}}`, `{"rescue": null}`} {
		r.ask("demo", "2.93", "POST", path+"/action", body).is(409)
	}
	r.ask("demo", "2.93", "POST", path+"/action", `{"unrescue": null}`).is(202)
	r.ask("demo", "2.93", "GET", path, nil).is(200).has("unrescuing", "server", "OS-EXT-STS:task_state")
}
