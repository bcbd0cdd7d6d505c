package compute_test

import (
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestSetAdminPassword(t *testing.T) {
	const secret = "open sesame"
	off := func(r *rig, inst *objects.Object) {
		if err := r.drv.PowerOff(r.t.Context(), uuidOf(inst), driver.PowerOffOptions{}); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		what     string
		password any
		prepare  func(*rig, *objects.Object)
		class    string
		text     string
	}{
		{what: "done", password: secret},
		{what: "no password", class: "InstancePasswordSetFailed", text: "no new password"},
		{what: "two lines", password: "a\nb", class: "InstancePasswordSetFailed", text: "line break"},
		{what: "not running", password: secret, prepare: off, class: "InstancePasswordSetFailed", text: "is not running"},
		{what: "a guest without", password: secret, prepare: func(r *rig, _ *objects.Object) {
			r.drv.FailNext(fake.StepPassword, errdefs.ErrUnsupported)
		}, class: "SetAdminPasswdNotSupported", text: "not supported"},
		{what: "a driver that fails", password: secret, prepare: func(r *rig, _ *objects.Object) {
			r.drv.FailNext(fake.StepPassword, errdefs.ErrUnavailable)
		}, class: "InstancePasswordSetFailed", text: "error setting admin password"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			if tc.prepare != nil {
				tc.prepare(r, inst)
			}
			rc := r.context(inst.String("uuid"), "changePassword")
			r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "updating_password") })
			err := r.call(rc, "set_admin_password", map[string]any{"instance": r.row(inst), "new_pass": tc.password}, nil)
			if tc.class == "" && err != nil || tc.class != "" && (!messaging.IsRemote(err, tc.class) || !strings.Contains(err.Error(), tc.text)) {
				t.Errorf("error = %v, want %s", err, tc.class)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the password is told: %v", err)
			}
			want := "secret" // of the build
			if tc.class == "" {
				want = secret
			}
			if got := r.drv.Password(uuidOf(inst)); got != want {
				t.Errorf("password %q", got)
			}
			if row := r.row(inst); row.String("vm_state") != "active" || !row.IsNull("task_state") {
				t.Errorf("state %s/%s", row.String("vm_state"), row.String("task_state"))
			}
		})
	}
}
