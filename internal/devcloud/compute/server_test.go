package compute

import (
	"testing"
)

func TestServerLives(t *testing.T) {
	r := newRig(t)
	f := r.flavor("tiny")
	id := r.server("demo", "Web 1", f)
	path := "/v2.1/servers/" + id
	show := r.ask("demo", "2.93", "GET", path, nil).is(200)
	show.has("ACTIVE", "server", "status").has("Web 1", "server", "name").has("10.0.0.5", "server", "addresses", "private", 0, "addr")
	show.has("web-1", "server", "OS-EXT-SRV-ATTR:hostname").has("tiny", "server", "flavor", "original_name").has("nova", "server", "OS-EXT-AZ:availability_zone")
	r.ask("demo", "2.93", "POST", path+"/action", `{"os-stop": null}`).is(202)
	r.hears("stop_instance")
	r.ask("demo", "2.93", "POST", path+"/action", `{"os-stop": null}`).says(409, "Cannot 'stop' instance "+id+" while it is in task_state powering-off")
	r.ask("demo", "2.93", "GET", path+"/os-instance-actions", nil).is(200).has("stop", "instanceActions", 0, "action").has("create", "instanceActions", 1, "action")
	r.ask("demo", "2.93", "DELETE", path, nil).is(204)
	r.hears("terminate_instance")
}
