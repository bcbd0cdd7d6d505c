package compute

import (
	"testing"

	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

func (r *rig) set(id string, fields map[string]any) {
	r.t.Helper()
	if _, err := r.cell.SetInstance(r.t.Context(), id, cell.Expect{}, fields); err != nil {
		r.t.Fatal(err)
	}
}

func TestShelveAndUnshelve(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "a", r.flavor("tiny"))
	path := "/v2.1/servers/" + id + "/action"
	r.ask("demo", "2.93", "POST", path, `{"shelve": null}`).is(202)
	r.hears("shelve_instance")
	r.ask("demo", "2.93", "POST", path, `{"shelve": null}`).is(409)
	r.set(id, map[string]any{"vm_state": "shelved", "task_state": nil, "system_metadata": map[string]string{"shelved_image_id": activeImage}})
	r.ask("demo", "2.93", "POST", path, `{"shelveOffload": null}`).is(403)
	r.ask("admin", "2.93", "POST", path, `{"shelveOffload": null}`).is(202)
	r.hears("shelve_offload_instance")
	r.set(id, map[string]any{"task_state": nil})
	r.ask("demo", "2.93", "POST", path, `{"unshelve": null}`).is(202)
	r.hears("start_instance")

	r.set(id, map[string]any{"vm_state": "shelved_offloaded", "task_state": nil, "host": nil})
	r.ask("demo", "2.93", "POST", path, `{"unshelve": {"availability_zone": "nova"}}`).is(400)
	r.ask("demo", "2.93", "POST", path, `{"unshelve": 7}`).is(400)
	r.ask("demo", "2.1", "POST", path, `{"unshelve": null}`).is(202)
	i, err := r.cell.Instance(t.Context(), id)
	if err != nil || i.VMState() != "active" {
		t.Errorf("the conductor was not asked: %s, %v", i.VMState(), err)
	}
	r.set(id, map[string]any{"vm_state": "shelved_offloaded", "system_metadata": map[string]string{"shelved_image_id": "gone"}})
	r.ask("demo", "2.93", "POST", path, `{"unshelve": null}`).says(409, "Instance "+id+" cannot be unshelved: its image cannot be found.")
	r.ask("demo", "2.93", "DELETE", "/v2.1/servers/"+id, nil).is(204)
	if got := r.images.deleted; len(got) != 1 || got[0] != "gone" {
		t.Errorf("images deleted: %q", got)
	}
}

func TestBackup(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "a", r.flavor("tiny"))
	path := "/v2.1/servers/" + id + "/action"
	r.ask("demo", "2.93", "POST", path, `{"createBackup": {"name": "b", "backup_type": "daily", "rotation": -1}}`).is(400)
	made := r.ask("demo", "2.93", "POST", path, `{"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}}`).is(202).text("image_id")
	r.hears("backup_instance")
	if made == "" {
		t.Error("no image is named")
	}
	r.set(id, map[string]any{"task_state": nil})
	r.ask("demo", "2.93", "POST", path, `{"createBackup": {"name": "b", "backup_type": "daily", "rotation": "0"}}`).is(202)
	r.hears("backup_instance")
}

func TestRebuild(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "a", r.flavor("tiny"))
	path := "/v2.1/servers/" + id + "/action"
	r.set(id, map[string]any{"system_metadata": map[string]string{"image_old": "x", "owner_user_name": "demo"}})
	r.ask("demo", "2.93", "POST", path, `{"rebuild": {"imageRef": "11111111-2222-4333-8444-555555555555"}}`).is(400)
	r.ask("demo", "2.93", "POST", path, `{"rebuild": {"imageRef": "`+activeImage+`", "key_name": "none"}}`).says(400, "Invalid key_name provided.")
	r.ask("demo", "2.93", "POST", path,
		`{"rebuild": {"imageRef": "`+activeImage+`", "name": "b", "metadata": {"k": "v"}, "adminPass": "secret", "description": "d", "user_data": "aGk="}}`).
		is(202).has("secret", "server", "adminPass").has("b", "server", "name").has("v", "server", "metadata", "k").has("REBUILD", "server", "status")
	r.hears("rebuild_instance")
	i, err := r.cell.Instance(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	meta := i.SystemMetadata()
	if i.String("image_ref") != activeImage || i.TaskState() != "rebuilding" || i.String("user_data") != "aGk=" ||
		meta["image_old"] != "" || meta["image_base_image_ref"] != activeImage || meta["owner_user_name"] != "demo" {
		t.Errorf("image %q, task %q, system_metadata %v", i.String("image_ref"), i.TaskState(), meta)
	}
	r.ask("demo", "2.93", "POST", path, `{"rebuild": {"imageRef": "`+activeImage+`"}}`).is(409)
}
