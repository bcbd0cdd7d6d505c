package conductor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// What hangs on instances: info caches, actions, faults, disks, ports, moves,
// consoles and groups.

func (c *Conductor) getInfoCache(ctx context.Context, in call) (any, error) {
	id := in.text(0, "instance_uuid")
	row, err := c.o.Store.Instance(ctx, id)
	if err != nil {
		return nil, or(err, noCache(id))
	}
	return row.InfoCache().Object, nil
}

func (c *Conductor) saveInfoCache(ctx context.Context, in call) (*objects.Object, any, error) {
	id := in.obj.String("instance_uuid")
	if slices.Contains(in.obj.Changes(), "network_info") {
		text := in.obj.String("network_info")
		if text == "" {
			text = "[]"
		}
		if _, err := objects.ParseNetworkInfo(text); err != nil {
			return nil, nil, builtin("ValueError", "%v", err)
		}
		if err := c.o.Store.SaveInfoCache(ctx, id, text); err != nil {
			return nil, nil, or(err, noCache(id))
		}
	}
	row, err := c.o.Store.Instance(ctx, id)
	if err != nil {
		return nil, nil, or(err, noCache(id))
	}
	return row.InfoCache().Object, nil, nil
}

func (c *Conductor) refreshInfoCache(ctx context.Context, in call) (*objects.Object, any, error) {
	id := in.obj.String("instance_uuid")
	row, err := c.o.Store.Instance(ctx, id)
	if err != nil {
		return nil, nil, or(err, noCache(id))
	}
	after := objects.New("InstanceInfoCache")
	for _, f := range in.obj.Fields() {
		after.SetClean(f, row.InfoCache().Get(f))
	}
	return after, nil, nil
}

// wanted is the result of a method that may be asked for none (want_result).
func (in call) wanted(i int, unless bool, o *objects.Object) any {
	want, given := in.arg(i, "want_result").(bool)
	if !given {
		want = unless
	}
	if !want || o == nil {
		return nil
	}
	return o
}

func (c *Conductor) actionStart(ctx context.Context, in call) (any, error) {
	if in.rc.RequestID() == "" {
		return nil, builtin("ValueError", "an action needs a request id")
	}
	a, err := c.o.Store.StartAction(ctx, in.text(0, "instance_uuid"), cell.Actor{
		Action: in.text(1, "action_name"), RequestID: in.rc.RequestID(), UserID: in.rc.UserID(), ProjectID: in.rc.ProjectID(),
	})
	return in.wanted(2, true, a), err
}

func (c *Conductor) actionFinish(ctx context.Context, in call) (any, error) {
	a, err := c.o.Store.FinishAction(ctx, in.text(0, "instance_uuid"), in.rc.RequestID())
	if err != nil {
		return nil, or(err, in.noAction())
	}
	return in.wanted(1, true, a), nil
}

func (c *Conductor) getAction(ctx context.Context, in call) (any, error) {
	a, _, err := c.o.Store.Action(ctx, in.text(0, "instance_uuid"), in.text(1, "request_id"))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil //nolint:nilnil // Nova answers so
	}
	return a, err
}

func (in call) noAction() *messaging.RemoteError {
	return messaging.NovaError("InstanceActionNotFound", 500, "Action for request_id %s on instance %s not found", in.rc.RequestID(), in.text(0, "instance_uuid"))
}

func (in call) event() cell.Event {
	return cell.Event{
		Instance: in.text(0, "instance_uuid"), RequestID: in.rc.RequestID(), Latest: in.rc.ProjectID() == "",
		Name: in.text(1, "event_name"),
	}
}

func (c *Conductor) eventStart(ctx context.Context, in call) (any, error) {
	e := in.event()
	e.Host = in.text(3, "host")
	o, err := c.o.Store.StartEvent(ctx, e)
	if err != nil {
		return nil, or(err, in.noAction())
	}
	return in.wanted(2, true, o), nil
}

// eventFinish is event_finish_with_failure: exc_tb makes it a failure.
func (c *Conductor) eventFinish(ctx context.Context, in call) (any, error) {
	trace, failed := in.kwargs["exc_tb"].(string)
	text, _ := in.kwargs["exc_val"].(string)
	e := in.event()
	o, err := c.o.Store.FinishEvent(ctx, e, cell.EventResult{Failed: failed, Details: clip(text), Traceback: trace})
	if errors.Is(err, cell.ErrNoEvent) {
		return nil, messaging.NovaError("InstanceActionEventNotFound", 500, "Event %s not found for action id of request %s", e.Name, e.RequestID)
	}
	if err != nil {
		return nil, or(err, in.noAction())
	}
	return in.wanted(4, false, o), nil
}

// maxMessage is how long a fault's message and an event's details are, in bytes.
const maxMessage = 255

// clip is s cut to maxMessage.
func clip(s string) string { return objects.NewInstanceFault("", "", 0, s, "").Message() }

func (c *Conductor) createFault(ctx context.Context, in call) (*objects.Object, any, error) {
	if in.obj.Has("id") {
		return nil, nil, actionFailed("create", "already created")
	}
	f := objects.InstanceFault{Object: in.obj}
	if len(f.Message()) > maxMessage {
		return nil, nil, &messaging.RemoteError{Class: "DBDataError", Module: "oslo_db.exception", Message: "Data too long for column 'message'"}
	}
	f, err := c.o.Store.AddFault(ctx, f)
	if err != nil {
		return nil, nil, or(err, noInstance(in.obj.String("instance_uuid")))
	}
	return f.Object, nil, nil
}

func (c *Conductor) getBlockDevices(ctx context.Context, in call) (any, error) {
	id := in.text(0, "instance_uuid")
	rows, err := c.o.Store.BlockDevices(ctx, id)
	if err != nil {
		return nil, err
	}
	return list("BlockDeviceMappingList", rows[id]), nil
}

func (c *Conductor) getBlockDevicesOf(ctx context.Context, in call) (any, error) {
	ids := texts(in.arg(0, "instance_uuids"))
	rows, err := c.o.Store.BlockDevices(ctx, ids...)
	if err != nil {
		return nil, err
	}
	var all []*objects.Object
	for _, id := range ids {
		all = append(all, rows[id]...)
	}
	return list("BlockDeviceMappingList", all), nil
}

func (c *Conductor) createBlockDevice(ctx context.Context, in call) (*objects.Object, any, error) {
	if in.obj.Has("id") {
		return nil, nil, actionFailed("create", "already created")
	}
	o, err := c.o.Store.CreateBlockDevice(ctx, in.obj)
	return o, nil, err
}

func (c *Conductor) saveBlockDevice(ctx context.Context, in call) (*objects.Object, any, error) {
	if slices.Contains(in.obj.Changes(), "instance") {
		return nil, nil, actionFailed("save", "instance changed")
	}
	o, err := c.o.Store.SaveBlockDevice(ctx, in.obj.Int("id"), in.saved())
	if err != nil {
		return nil, nil, or(err, messaging.NovaError("BDMNotFound", 404, "No Block Device Mapping with id %d.", in.obj.Int("id")))
	}
	return o, nil, nil
}

// saved are the changes without the id, which is in the row already.
func (in call) saved() map[string]any {
	fields := in.changes()
	delete(fields, "id")
	return fields
}

func (c *Conductor) destroyBlockDevice(ctx context.Context, in call) (*objects.Object, any, error) {
	return nil, nil, c.o.Store.DestroyBlockDevice(ctx, in.obj.Int("id"))
}

// shown is an interface as Nova's object has it: without the port's id that
// makes the address unique in the table.
func shown(row *objects.Object) *objects.Object {
	out := row.Clone()
	mac, _, _ := strings.Cut(row.String("address"), "/")
	out.SetClean("address", mac)
	return out
}

func (c *Conductor) createInterface(ctx context.Context, in call) (*objects.Object, any, error) {
	if in.obj.Has("id") {
		return nil, nil, actionFailed("create", "already created")
	}
	o, err := c.o.Store.CreateInterface(ctx, in.obj)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, nil, messaging.NovaError("VirtualInterfaceCreateException", 500, "Virtual Interface creation failed")
	}
	if err != nil {
		return nil, nil, err
	}
	return shown(o), nil, nil
}

func (c *Conductor) saveInterface(ctx context.Context, in call) (*objects.Object, any, error) {
	o, err := c.o.Store.SaveInterface(ctx, in.obj.Int("id"), in.saved())
	if err != nil {
		return nil, nil, or(err, messaging.NovaError("VirtualInterfaceNotFound", 404, "Virtual interface %d could not be found.", in.obj.Int("id")))
	}
	return shown(o), nil, nil
}

func (c *Conductor) destroyInterface(ctx context.Context, in call) (*objects.Object, any, error) {
	return nil, nil, c.o.Store.DestroyInterface(ctx, in.obj.Int("id"))
}

func (c *Conductor) getInterface(ctx context.Context, in call) (any, error) {
	o, err := c.o.Store.Interface(ctx, in.text(0, "uuid"))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil //nolint:nilnil // Nova answers so
	}
	if err != nil {
		return nil, err
	}
	return shown(o), nil
}

func (c *Conductor) getInterfaces(ctx context.Context, in call) (any, error) {
	rows, err := c.o.Store.Interfaces(ctx, in.text(0, "instance_uuid"))
	if err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i] = shown(rows[i])
	}
	return list("VirtualInterfaceList", rows), nil
}

func (c *Conductor) deleteInterfaces(ctx context.Context, in call) (any, error) {
	return nil, c.o.Store.DestroyInterfaces(ctx, in.text(0, "instance_uuid"))
}

func (c *Conductor) getMigration(ctx context.Context, in call) (any, error) {
	id := in.number(0, "migration_id")
	o, err := c.o.Store.Migration(ctx, id)
	if err != nil {
		return nil, or(err, noMigration(id))
	}
	return o, nil
}

func noMigration(id int64) *messaging.RemoteError {
	return messaging.NovaError("MigrationNotFound", 404, "Migration %d could not be found.", id)
}

func (c *Conductor) createMigration(ctx context.Context, in call) (*objects.Object, any, error) {
	if in.obj.Has("id") {
		return nil, nil, actionFailed("create", "already created")
	}
	o, err := c.o.Store.CreateMigration(ctx, in.obj)
	return o, nil, err
}

func (c *Conductor) saveMigration(ctx context.Context, in call) (*objects.Object, any, error) {
	o, err := c.o.Store.SaveMigration(ctx, in.obj.Int("id"), in.saved())
	if err != nil {
		return nil, nil, or(err, noMigration(in.obj.Int("id")))
	}
	return o, nil, nil
}

func (c *Conductor) authorizeConsole(ctx context.Context, in call) (*objects.Object, any, error) {
	ttl := in.number(0, "ttl")
	if ttl <= 0 {
		return nil, nil, builtin("ValueError", "time to live %v", in.arg(0, "ttl"))
	}
	if in.obj.Has("id") {
		return nil, nil, actionFailed("authorize", "must be a new object to authorize")
	}
	o, err := c.o.Store.AuthorizeConsole(ctx, in.obj, time.Duration(ttl)*time.Second)
	if err != nil {
		return nil, nil, err
	}
	return o, o.String("token"), nil
}

func (c *Conductor) validateConsole(ctx context.Context, in call) (any, error) {
	o, err := c.o.Store.Console(ctx, in.text(0, "token"))
	if err != nil {
		return nil, or(err, messaging.NovaError("InvalidToken", 400, "The token '***' is invalid or has expired"))
	}
	return o, nil
}

func (c *Conductor) cleanConsoles(ctx context.Context, in call) (any, error) {
	return nil, c.o.Store.CleanConsoles(ctx, in.text(0, "instance_uuid"))
}

func (c *Conductor) cleanExpiredConsoles(ctx context.Context, _ call) (any, error) {
	return nil, c.o.Store.CleanExpiredConsoles(ctx)
}

func (c *Conductor) getGroup(ctx context.Context, in call) (any, error) {
	id := in.text(0, "instance_uuid")
	if c.o.Groups == nil {
		return nil, noGroup(id)
	}
	g, err := c.o.Groups.GroupOf(ctx, id)
	if err != nil {
		return nil, or(err, noGroup(id))
	}
	return c.withHosts(ctx, g)
}

func (c *Conductor) getGroupByHint(ctx context.Context, in call) (any, error) {
	hint := in.text(0, "hint")
	if c.o.Groups == nil {
		return nil, noGroup(hint)
	}
	g, err := c.o.Groups.GroupByHint(ctx, hint)
	if err != nil {
		return nil, or(err, noGroup(hint))
	}
	return c.withHosts(ctx, g)
}

func noGroup(id string) *messaging.RemoteError {
	return messaging.NovaError("InstanceGroupNotFound", 404, "Instance group %s could not be found.", id)
}

// withHosts fills in where the members of a group are.
func (c *Conductor) withHosts(ctx context.Context, g objects.InstanceGroup) (*objects.Object, error) {
	hosts, err := c.hostsOf(ctx, g.Members(), nil)
	if err != nil {
		return nil, err
	}
	o := g.Clone()
	o.SetClean("hosts", hosts)
	return o, nil
}

// hostsOf are the hosts of instances without the excluded ones, sorted.
func (c *Conductor) hostsOf(ctx context.Context, members, exclude []string) ([]string, error) {
	var ids []any
	for _, m := range members {
		if !slices.Contains(exclude, m) {
			ids = append(ids, m)
		}
	}
	rows, err := c.o.Store.ListInstances(ctx, cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: map[string][]any{"uuid": ids}})
	hosts := []string{}
	for _, row := range rows {
		if row.Host() != "" {
			hosts = append(hosts, row.Host())
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), err
}

func (c *Conductor) groupHosts(ctx context.Context, in call) (*objects.Object, any, error) {
	hosts, err := c.hostsOf(ctx, in.obj.StringList("members"), texts(in.arg(0, "exclude")))
	return nil, hosts, err
}
