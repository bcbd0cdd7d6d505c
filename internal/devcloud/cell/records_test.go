package cell_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func object(name string, fields map[string]any) *objects.Object {
	o := objects.New(name)
	for f, v := range fields {
		o.Set(f, v)
	}
	return o
}

// TestConcurrentChangesAreAllKept has many writers change one instance, some of
// whom give up in the middle: what is remembered is what is stored.
func TestConcurrentChangesAreAllKept(t *testing.T) {
	s := newStore(t)
	id := create(t, s, building("p", "one")).UUID()
	stop := errors.New("stop")
	var all sync.WaitGroup
	for n := range 40 {
		all.Go(func() {
			_, err := s.UpdateInstance(t.Context(), id, cell.Expect{}, func(i objects.Instance) error {
				meta := i.Metadata()
				meta[fmt.Sprintf("key-%d", n)] = "x"
				i.Set("metadata", meta)
				if n%4 == 0 {
					return stop
				}
				return nil
			})
			if n%4 == 0 != errors.Is(err, stop) {
				t.Errorf("writer %d: %v", n, err)
			}
			if _, err := s.ListInstances(t.Context(), cell.InstanceQuery{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	i, err := s.Instance(t.Context(), id)
	if err != nil || len(i.Metadata()) != 31 {
		t.Errorf("%d keys, %v", len(i.Metadata()), err)
	}
	if len(i.Changes()) != 0 {
		t.Errorf("marks in a row: %v", i.Changes())
	}
}

// TestLargeInstances: what is not remembered is read as well.
func TestLargeInstances(t *testing.T) {
	s := newStore(t)
	big := building("p", "big")
	big.Set("user_data", strings.Repeat("A", 65535))
	id := create(t, s, big).UUID()
	for _, state := range []string{"spawning", ""} {
		if _, err := s.SetInstance(t.Context(), id, cell.Expect{}, map[string]any{"task_state": state}); err != nil {
			t.Fatal(err)
		}
		if i, err := s.Instance(t.Context(), id); err != nil || i.TaskState() != state || len(i.UserData()) != 65535 {
			t.Errorf("state %q: %q %v", state, i.TaskState(), err)
		}
	}
}

func TestTakenUUID(t *testing.T) {
	s := newStore(t)
	one := create(t, s, building("p", "one"))
	twice, other := building("p", "two"), building("p", "three")
	twice.Set("uuid", one.UUID())
	_, err := s.CreateInstances(t.Context(), cell.Create{Instances: []cell.NewInstance{{Instance: other}, {Instance: twice}}})
	if !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("got %v", err)
	}
	if got := names(t, s, cell.InstanceQuery{}); len(got) != 1 {
		t.Errorf("a part of the request was stored: %v", got)
	}
}

func TestDestroyTakesWhatHangsOnIt(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	id := create(t, s, tagged(building("p", "one"), "red")).UUID()
	_, err := s.CreateBlockDevice(ctx, object("BlockDeviceMapping", map[string]any{"instance_uuid": id}))
	_, err2 := s.CreateInterface(ctx, object("VirtualInterface", map[string]any{"instance_uuid": id, "address": "a/p", "uuid": "p"}))
	_, err3 := s.CreateMigration(ctx, object("Migration", map[string]any{"instance_uuid": id, "status": "done"}))
	token, err4 := s.AuthorizeConsole(ctx, object("ConsoleAuthToken", map[string]any{"instance_uuid": id, "host": "h", "port": 1}), time.Minute)
	if _, err5 := s.SetInstance(ctx, id, cell.Expect{}, map[string]any{"host": "cmp1"}); errors.Join(err, err2, err3, err4, err5) != nil {
		t.Fatal(errors.Join(err, err2, err3, err4, err5))
	}
	if _, err := s.DestroyInstance(ctx, id, cell.NoHost); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("it has a host: %v", err)
	}
	gone, err := s.DestroyInstance(ctx, id, cell.AnyHost)
	if err != nil || !gone.Deleted() || gone.Time("deleted_at").IsZero() {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"get":     third(s.Instance(ctx, id)),
		"change":  third(s.SetInstance(ctx, id, cell.Expect{}, nil)),
		"destroy": third(s.DestroyInstance(ctx, id, cell.AnyHost)),
		"network": s.SaveInfoCache(ctx, id, "[]"),
		"port":    third(s.Interface(ctx, "p")),
		"console": third(s.Console(ctx, token.String("token"))),
	} {
		if !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s of a deleted instance: %v", name, err)
		}
	}
	devices, err := s.BlockDevices(ctx, id)
	moves, err2 := s.Migrations(ctx, cell.MigrationQuery{})
	ended, err3 := s.Migrations(ctx, cell.MigrationQuery{Deleted: true})
	if errors.Join(err, err2, err3) != nil || len(devices) != 0 || len(moves) != 0 || len(ended) != 1 {
		t.Errorf("left: %v %v %v", devices, moves, ended)
	}
	if a, _, err := s.Action(ctx, id, "req-create"); err != nil || a.String("action") != "create" {
		t.Errorf("its actions stay: %v", err)
	}
	if i, err := s.AnyInstance(ctx, id); err != nil || len(i.Object.Object("tags").Objects("objects")) != 0 || i.DisplayName() != "one" {
		t.Errorf("the row: %v %v", i.Object, err)
	}
}

func third[V any](_ V, err error) error { return err }

func TestFaultIsPartOfItsInstance(t *testing.T) {
	s := newStore(t)
	id := create(t, s, building("p", "one")).UUID()
	for _, text := range []string{"first", "second"} {
		if _, err := s.AddFault(t.Context(), objects.NewInstanceFault(id, "cmp1", 500, text, "details")); err != nil {
			t.Fatal(err)
		}
	}
	i, err := s.Instance(t.Context(), id)
	all, err2 := s.Faults(t.Context(), id)
	if errors.Join(err, err2) != nil || i.Object.Object("fault").String("message") != "second" || len(all) != 2 || all[1].String("message") != "first" {
		t.Errorf("faults: %v %v", all, errors.Join(err, err2))
	}
	if !i.UpdatedAt().IsZero() {
		t.Error("a fault is no change of the row")
	}
	if _, err := s.AddFault(t.Context(), objects.NewInstanceFault("nobody", "", 500, "x", "")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestActionsAndEvents(t *testing.T) {
	s := newStore(t)
	ctx, id := t.Context(), uuid.NewString()
	for n := range 3 {
		if _, err := s.StartAction(ctx, id, cell.Actor{Action: "stop", RequestID: fmt.Sprintf("req-%d", n), UserID: "u"}); err != nil {
			t.Fatal(err)
		}
	}
	ids := func(q cell.ActionQuery) (out []string) {
		l, err := s.Actions(ctx, id, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range l {
			out = append(out, a.String("request_id"))
		}
		return out
	}
	for name, c := range map[string]struct {
		q    cell.ActionQuery
		want []string
	}{
		"all":    {cell.ActionQuery{}, []string{"req-2", "req-1", "req-0"}},
		"page":   {cell.ActionQuery{Marker: "req-2", Limit: 1}, []string{"req-1"}},
		"since":  {cell.ActionQuery{ChangedSince: time.Now().Add(time.Hour)}, nil},
		"before": {cell.ActionQuery{ChangedBefore: time.Now().Add(time.Hour), Limit: 1}, []string{"req-2"}},
	} {
		if got := ids(c.q); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := s.Actions(ctx, id, cell.ActionQuery{Marker: "req-9"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("marker: %v", err)
	}
	e := cell.Event{Instance: id, RequestID: "req-1", Name: "compute_stop_instance", Host: "cmp1"}
	if _, err := s.FinishEvent(ctx, e, cell.EventResult{}); !errors.Is(err, cell.ErrNoEvent) {
		t.Errorf("not started: %v", err)
	}
	stranger := e
	stranger.RequestID = "req-9"
	if _, err := s.StartEvent(ctx, stranger); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("without an action: %v", err)
	}
	stranger.Latest = true
	for _, one := range []cell.Event{e, stranger} {
		if _, err := s.StartEvent(ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.FinishEvent(ctx, e, cell.EventResult{Failed: true, Details: "no", Traceback: "tb"}); err != nil {
		t.Fatal(err)
	}
	a, events, err := s.Action(ctx, id, "req-1")
	if err != nil || a.String("message") != "Error" || len(events) != 1 || events[0].String("result") != "Error" ||
		events[0].String("details") != "no" || events[0].Time("finish_time").IsZero() {
		t.Errorf("%v %v %v", a, events, err)
	}
	if _, events, err = s.Action(ctx, id, "req-2"); err != nil || len(events) != 1 || events[0].String("result") != "" {
		t.Errorf("the latest action: %v %v", events, err)
	}
	if a, err = s.FinishAction(ctx, id, "req-1"); err != nil || a.Time("finish_time").IsZero() {
		t.Error(err)
	}
}

func TestMigrationQueries(t *testing.T) {
	s := newStore(t)
	ctx, hidden := t.Context(), true
	for n, f := range []map[string]any{
		{"source_compute": "a", "source_node": "a", "dest_compute": "b", "dest_node": "b", "status": "finished", "migration_type": "resize", "instance_uuid": "i1", "project_id": "p"},
		{"source_compute": "b", "source_node": "b", "status": "done", "migration_type": "evacuation", "instance_uuid": "i2", "user_id": "u"},
		{"source_compute": "c", "source_node": "c", "status": "error", "migration_type": "migration", "hidden": true},
	} {
		f["uuid"] = fmt.Sprintf("m%d", n)
		if _, err := s.CreateMigration(ctx, object("Migration", f)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		q    cell.MigrationQuery
		want []string
	}{
		"all":         {cell.MigrationQuery{}, []string{"m0", "m1", "m2"}},
		"newest":      {cell.MigrationQuery{Newest: true, Limit: 2}, []string{"m2", "m1"}},
		"page":        {cell.MigrationQuery{Newest: true, Marker: "m2"}, []string{"m1", "m0"}},
		"host":        {cell.MigrationQuery{Host: "b"}, []string{"m0", "m1"}},
		"host, node":  {cell.MigrationQuery{Host: "b", Node: "a"}, nil},
		"node":        {cell.MigrationQuery{Node: "c"}, []string{"m2"}},
		"source":      {cell.MigrationQuery{Source: "b"}, []string{"m1"}},
		"status":      {cell.MigrationQuery{Statuses: []string{"done", "error"}}, []string{"m1", "m2"}},
		"no status":   {cell.MigrationQuery{Statuses: []string{}}, nil},
		"type":        {cell.MigrationQuery{Type: "resize"}, []string{"m0"}},
		"in progress": {cell.MigrationQuery{InProgress: true}, []string{"m0", "m2"}},
		"instance":    {cell.MigrationQuery{InstanceUUID: "i2"}, []string{"m1"}},
		"owner":       {cell.MigrationQuery{ProjectID: "p"}, []string{"m0"}},
		"user":        {cell.MigrationQuery{UserID: "u", UUIDs: []string{"m0", "m1"}}, []string{"m1"}},
		"hidden":      {cell.MigrationQuery{Hidden: &hidden}, []string{"m2"}},
		"since":       {cell.MigrationQuery{ChangedSince: time.Now().Add(time.Hour)}, nil},
	} {
		l, err := s.Migrations(ctx, c.q)
		var got []string
		for _, m := range l {
			got = append(got, m.String("uuid"))
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	if _, err := s.Migrations(ctx, cell.MigrationQuery{Marker: "m9"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("marker: %v", err)
	}
	if _, err := s.SaveMigration(ctx, 1, map[string]any{"id": 7}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a new id: %v", err)
	}
}

func TestServiceIsUpWhileItReports(t *testing.T) {
	s := newStore(t)
	service, err := s.CreateService(t.Context(), objects.NewService("cmp1", "nova-compute", "compute", 64))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if !cell.Up(service, now) || cell.Up(service, now.Add(2*time.Minute)) {
		t.Error("a new service is up for a while")
	}
	save := func(fields map[string]any) objects.Service {
		out, err := s.SaveService(t.Context(), service.ID(), fields)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := save(map[string]any{"report_count": 0, "version": 64}); !got.LastSeenUp().IsZero() {
		t.Error("a count that does not grow is no sign of life")
	}
	if got := save(map[string]any{"report_count": 1}); got.LastSeenUp().IsZero() || !cell.Up(got, got.LastSeenUp().Add(cell.ServiceDownTime)) ||
		cell.Up(got, got.LastSeenUp().Add(cell.ServiceDownTime+time.Second)) {
		t.Error("60 seconds")
	}
	if cell.Up(save(map[string]any{"forced_down": true}), now) {
		t.Error("forced down")
	}
	if _, err := s.CreateService(t.Context(), objects.NewService("cmp1", "nova-compute", "compute", 64)); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("twice: %v", err)
	}
	if l, err := s.Services(t.Context(), cell.ServiceQuery{UUID: service.UUID(), Binary: "nova-compute"}); err != nil || len(l) != 1 {
		t.Error(l, err)
	}
}

func TestConsoleTokens(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	authorize := func(ttl time.Duration) string {
		o, err := s.AuthorizeConsole(ctx, object("ConsoleAuthToken", map[string]any{"instance_uuid": "i", "host": "h", "port": 7, "console_type": "serial"}), ttl)
		if err != nil || o.Int("id") == 0 {
			t.Fatal(err)
		}
		return o.String("token")
	}
	good, old := authorize(time.Minute), authorize(-time.Second)
	if o, err := s.Console(ctx, good); err != nil || o.String("host") != "h" || o.String("token") != good {
		t.Error(o, err)
	}
	for _, token := range []string{old, "", "' OR 1=1 --"} {
		if _, err := s.Console(ctx, token); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%q: %v", token, err)
		}
	}
	if err := s.CleanExpiredConsoles(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Console(ctx, good); err != nil {
		t.Error(err)
	}
	if err := s.CleanConsoles(ctx, "i"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Console(ctx, good); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
}

func TestRequestSpecIsReplaced(t *testing.T) {
	s := newStore(t)
	spec := objects.RequestSpec{Object: object("RequestSpec", map[string]any{"instance_uuid": "i", "num_instances": 1})}
	for _, n := range []int{1, 2} {
		spec.Set("num_instances", n)
		if err := s.SaveRequestSpec(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.RequestSpec(t.Context(), "i"); err != nil || got.Int("num_instances") != 2 {
		t.Error(got, err)
	}
	if _, err := s.RequestSpec(t.Context(), "j"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
}
