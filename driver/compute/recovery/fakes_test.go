package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/driver/placement"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var (
	_ Operations  = (*compute.Manager)(nil)
	_ Conductor   = (*conductor.Client)(nil)
	_ Allocations = (*placement.Reporter)(nil)
)

var errAway = errors.New("control plane is away")

// world is a host, its control plane and a log of what was done to them.
type world struct {
	driver.ComputeDriver // only what recovery calls is there

	mu         sync.Mutex
	guests     map[string]driver.PowerState
	rows       map[string]*objects.Object
	migrations []*objects.Object // evacuations
	moves      []*objects.Object // from cmp1
	consumers  []string
	rescued    bool
	fail       map[string]error // by verb
	did        []string
}

func newWorld() *world {
	return &world{guests: map[string]driver.PowerState{}, rows: map[string]*objects.Object{}, fail: map[string]error{}}
}

// do notes a verb and returns the error that the test planned for it.
func (w *world) do(verb, format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did = append(w.did, verb+" "+fmt.Sprintf(format, args...))
	return w.fail[verb]
}

func (w *world) done() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.did)
}

// instance adds a row and, with a state other than PowerNoState, a guest.
func (w *world) instance(uuid, host, vm, task string, guest driver.PowerState) *objects.Object {
	o := &objects.Object{Name: "Instance", Version: "2.7"}
	o.SetClean("uuid", uuid)
	o.SetClean("host", host)
	if host == "" {
		o.SetClean("host", nil)
	}
	o.SetClean("vm_state", vm)
	o.SetClean("task_state", task)
	if task == "" {
		o.SetClean("task_state", nil)
	}
	o.SetClean("power_state", int(driver.PowerRunning))
	cache := &objects.Object{Name: "InstanceInfoCache", Version: "1.5"}
	cache.SetClean("network_info", `[{"id":"port-`+uuid+`","type":"bridge"}]`)
	o.SetClean("info_cache", cache)
	w.rows[uuid] = o
	if guest != driver.PowerNoState {
		w.guests[uuid] = guest
	}
	return o
}

// The driver.

func (w *world) Recover(context.Context) ([]driver.InstanceUUID, error) {
	return nil, w.do("recover", "")
}

func (w *world) Info(_ context.Context, uuid driver.InstanceUUID) (driver.Info, error) {
	if err := w.fail["info"]; err != nil {
		return driver.Info{}, err
	}
	state, ok := w.guests[string(uuid)]
	if !ok {
		return driver.Info{}, errdefs.ErrNotFound
	}
	return driver.Info{State: state, Rescued: w.rescued}, nil
}

// Instances lists the guests; the order is that of their names.
func (w *world) Instances(context.Context) ([]driver.InstanceUUID, error) {
	var out []driver.InstanceUUID
	for _, id := range slices.Sorted(maps.Keys(w.guests)) {
		out = append(out, driver.InstanceUUID(id))
	}
	return out, w.fail["instances"]
}

func (w *world) Destroy(_ context.Context, uuid driver.InstanceUUID) error {
	return w.do("destroy", "%s", uuid)
}

func (w *world) Plug(_ context.Context, uuid driver.InstanceUUID, vifs objects.NetworkInfo) error {
	return w.do("plug", "%s %s", uuid, vifs[0].ID)
}

func (w *world) PowerOn(_ context.Context, req driver.PowerOnRequest) error {
	return w.do("poweron", "%s %d", req.UUID, len(req.VIFs))
}

func (w *world) Pause(context.Context, driver.InstanceUUID) error { return nil }

func (w *world) Unpause(_ context.Context, uuid driver.InstanceUUID) error {
	return w.do("thaw", "%s", uuid)
}

func (w *world) Rescue(context.Context, driver.RescueRequest) error { return nil }

func (w *world) Unrescue(_ context.Context, req driver.UnrescueRequest) error {
	return w.do("own system", "%s %d on=%t", req.UUID, len(req.VIFs), req.PowerOn)
}

// The control plane.

type cloud struct{ *world }

func (c cloud) InstancesByHost(_ context.Context, _ messaging.RequestContext, _ string, _ ...string) ([]*objects.Object, error) {
	if err := c.fail["list"]; err != nil {
		return nil, err
	}
	var out []*objects.Object
	for _, uuid := range slices.Sorted(maps.Keys(c.rows)) {
		if c.rows[uuid].String("host") != "" {
			out = append(out, c.rows[uuid])
		}
	}
	return out, nil
}

func (c cloud) InstancesByFilters(_ context.Context, _ messaging.RequestContext, filters map[string]any, _ ...string) ([]*objects.Object, error) {
	if err := c.fail["filter"]; err != nil {
		return nil, err
	}
	var out []*objects.Object
	for _, uuid := range filters["uuid"].([]string) {
		if row := c.rows[uuid]; row != nil && row.String("vm_state") == filters["vm_state"] {
			out = append(out, row)
		}
	}
	return out, nil
}

func (c cloud) GetInstance(_ context.Context, _ messaging.RequestContext, uuid string, _ ...string) (*objects.Object, error) {
	if row := c.rows[uuid]; row != nil {
		return row, nil
	}
	return nil, messaging.NovaError("InstanceNotFound", 404, "%s", uuid)
}

func (c cloud) SaveInstance(_ context.Context, _ messaging.RequestContext, inst *objects.Object, expect compute.Expect) error {
	text := ""
	for _, f := range inst.Changes() {
		if f == "launched_at" { // whenever that is
			text += " " + f
			continue
		}
		text += fmt.Sprintf(" %s=%v", f, inst.Get(f))
	}
	inst.ResetChanges()
	return c.do("save", "%s if%v%s", inst.String("uuid"), expect.TaskState, text)
}

func (c cloud) DestroyInstance(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("destroyrow", "%s", inst.String("uuid"))
}

func (c cloud) CreateFault(_ context.Context, _ messaging.RequestContext, uuid string, code int, _, _ string) error {
	return c.do("fault", "%s %d", uuid, code)
}

func (c cloud) CleanConsoleAuths(_ context.Context, _ messaging.RequestContext, uuid string) error {
	return c.do("consoles", "%s", uuid)
}

func (c cloud) MigrationsByFilters(_ context.Context, rc messaging.RequestContext, filters map[string]any) ([]*objects.Object, error) {
	if filters["migration_type"] == "evacuation" {
		if rc.String("read_deleted") != "yes" {
			return nil, errors.New("read_deleted must be yes")
		}
		return c.migrations, c.fail["migrations"]
	}
	var out []*objects.Object
	statuses, _ := filters["status"].([]string)
	for _, m := range c.moves {
		of, one := filters["instance_uuid"].(string)
		if filters["source_compute"] == "cmp1" && slices.Contains(statuses, m.String("status")) && (!one || of == m.String("instance_uuid")) {
			out = append(out, m)
		}
	}
	return out, c.fail["migrations"]
}

func (c cloud) SaveMigration(_ context.Context, _ messaging.RequestContext, m *objects.Object) error {
	return c.do("savemigration", "%s", m.String("status"))
}

func (c cloud) Terminate(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("terminate", "%s", inst.String("uuid"))
}

func (c cloud) Stop(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("stop", "%s", inst.String("uuid"))
}

func (c cloud) Start(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("start", "%s", inst.String("uuid"))
}

func (c cloud) Unpause(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("unpause", "%s", inst.String("uuid"))
}

func (c cloud) Unrescue(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("unrescue", "%s", inst.String("uuid"))
}

func (c cloud) Resume(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("resume", "%s", inst.String("uuid"))
}

func (c cloud) Offload(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("offload", "%s", inst.String("uuid"))
}

func (c cloud) AbandonMove(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("abandon move", "%s", inst.String("uuid"))
}

func (c cloud) ConfirmMove(_ context.Context, _ messaging.RequestContext, inst, mig *objects.Object) error {
	return c.do("confirm move", "%s %s", inst.String("uuid"), mig.String("status"))
}

func (c cloud) Reboot(_ context.Context, _ messaging.RequestContext, inst *objects.Object, kind driver.RebootType) error {
	return c.do("reboot", "%s %s", inst.String("uuid"), kind)
}

func (c cloud) Deallocate(_ context.Context, _ messaging.RequestContext, inst *objects.Object, known objects.NetworkInfo) error {
	return c.do("deallocate", "%s %d", inst.String("uuid"), len(known))
}

func (c cloud) Drop(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return c.do("drop", "%s", inst.String("uuid"))
}

func (c cloud) Consumers(context.Context, string) ([]string, error) {
	return c.consumers, c.fail["consumers"]
}

func (c cloud) RemoveProvider(_ context.Context, consumer, provider string) error {
	return c.do("removeprovider", "%s %s", consumer, provider)
}
