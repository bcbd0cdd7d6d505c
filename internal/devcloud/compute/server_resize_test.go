package compute

import (
	"testing"

	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

func TestResize(t *testing.T) {
	r := newRig(t)
	tiny, large := r.flavor("tiny"), r.flavor("large")
	id := r.server("demo", "a", tiny)
	path := "/v2.1/servers/" + id + "/action"
	resize := func(ref string) string { return `{"resize": {"flavorRef": "` + ref + `"}}` }
	status := func(want string) {
		t.Helper()
		all, err := r.cell.Migrations(t.Context(), cell.MigrationQuery{InstanceUUID: id, Newest: true})
		if err != nil || all[0].String("status") != want {
			t.Errorf("migration is %s, %v, want %s", all[0].String("status"), err, want)
		}
	}
	r.ask("demo", "2.93", "POST", path, resize(tiny)).says(400, "When resizing, instances must change flavor!")
	r.ask("demo", "2.93", "POST", path, resize("nothing")).is(400)
	r.ask("demo", "2.93", "POST", path, `{"resize": {}}`).is(400)
	r.ask("demo", "2.93", "POST", path, resize(large)).is(202)
	r.ask("demo", "2.93", "POST", path, resize(tiny)).is(409)
	if got := r.ask("demo", "2.93", "GET", "/v2.1/servers/"+id, nil).is(200).text("server", "status"); got != "VERIFY_RESIZE" {
		t.Errorf("status %s", got)
	}
	r.ask("demo", "2.93", "POST", path, `{"revertResize": null}`).is(202)
	r.hears("revert_resize")
	status("reverting")
	r.set(id, map[string]any{"vm_state": vmActive, "task_state": nil})
	r.ask("demo", "2.93", "POST", path, `{"confirmResize": null}`).is(409)
	r.set(id, map[string]any{"vm_state": vmResized})
	r.ask("demo", "2.93", "POST", path, `{"confirmResize": null}`).says(400, "Instance has not been resized.")
	r.set(id, map[string]any{"vm_state": vmActive})
	r.ask("demo", "2.93", "POST", path, resize(r.flavor("larger"))).is(202)
	r.ask("demo", "2.93", "POST", path, `{"confirmResize": null}`).is(204)
	r.hears("confirm_resize")
	status("confirming")
}
