package cell

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var instances = table{name: "instances", object: "Instance", columns: []string{
	"uuid", "project_id", "user_id", "display_name", "hostname", "host", "node", "availability_zone",
	"vm_state", "task_state", "power_state", "image_ref", "instance_type_id", "reservation_id", "vcpus", "memory_mb",
	"created_at", "updated_at", "launched_at", "terminated_at", "deleted_at", "deleted", "hidden",
}, without: []string{"ec2_ids", "services", "pci_devices"}}

var infoCaches = table{object: "InstanceInfoCache"} // inside instances

var specs = table{name: "request_specs", object: "RequestSpec", columns: []string{"instance_uuid"}}

// NewInstance is an instance to create with what belongs to it.
type NewInstance struct {
	// Instance has any fields set; a missing uuid is made. Among them may be
	// flavor, old_flavor, new_flavor, metadata, system_metadata, tags,
	// keypairs, info_cache, security_groups and pci_requests, which an
	// instance keeps with it.
	Instance objects.Instance
	// Spec and BlockDevices get the instance's uuid. Spec may be absent.
	Spec         objects.RequestSpec
	BlockDevices []*objects.Object
}

// Create is a request for instances that are created together.
type Create struct {
	Instances []NewInstance
	// Action is started for each, unless it is empty.
	Action Actor
	// Admit, if set, sees what the project (Action.ProjectID) and, in it, the
	// user have now and refuses with an error, in the same transaction.
	Admit func(project, user Usage) error
}

// CreateInstances stores all of them or none and returns them complete. A
// uuid that is taken is errdefs.ErrAlreadyExists.
func (s *Store) CreateInstances(ctx context.Context, c Create) ([]objects.Instance, error) {
	out := make([]objects.Instance, 0, len(c.Instances))
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		if c.Admit != nil {
			project, err := usage(ctx, tx, c.Action.ProjectID, "")
			if err != nil {
				return err
			}
			user, err := usage(ctx, tx, c.Action.ProjectID, c.Action.UserID)
			if err != nil {
				return err
			}
			if err := c.Admit(project, user); err != nil {
				return err
			}
		}
		for _, n := range c.Instances {
			i, err := n.insert(ctx, tx)
			if err != nil {
				return err
			}
			if c.Action.Action != "" {
				if _, err := startAction(ctx, tx, i.UUID(), c.Action); err != nil {
					return err
				}
			}
			out = append(out, i)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("create instances: %w", err)
	}
	for _, i := range out {
		s.memo.put(i.ID(), 1, i.Object)
	}
	return out, nil
}

func (n NewInstance) insert(ctx context.Context, tx *sql.Tx) (objects.Instance, error) {
	i := objects.Instance{Object: n.Instance.Clone()}
	if i.UUID() == "" {
		i.SetClean("uuid", uuid.NewString())
	}
	i.SetClean("info_cache", newCache(i))
	instances.complete(i.Object)
	if err := insertInstance(ctx, tx, i.Object); err != nil {
		return i, err
	}
	if n.Spec.Object != nil {
		spec := n.Spec.Clone()
		spec.SetClean("instance_uuid", i.UUID())
		if err := putSpec(ctx, tx, spec); err != nil {
			return i, err
		}
	}
	for _, b := range n.BlockDevices {
		b = b.Clone()
		b.SetClean("instance_uuid", i.UUID())
		if err := insertBlockDevice(ctx, tx, b); err != nil {
			return i, err
		}
	}
	return i, nil
}

func insertInstance(ctx context.Context, tx *sql.Tx, i *objects.Object) error {
	data, err := encode(i)
	if err != nil {
		return err
	}
	names, marks, args := "", "", make([]any, 0, len(instances.columns)+1)
	for _, c := range instances.columns {
		names, marks, args = names+c+", ", marks+"?, ", append(args, column(i, c))
	}
	res, err := tx.ExecContext(ctx, "INSERT INTO instances ("+names+"rev, data) VALUES ("+marks+"1, ?)", append(args, data)...)
	if err != nil {
		return err
	}
	id, err := res.LastInsertId()
	i.SetClean("id", id)
	return err
}

// live is the condition of rows that are not deleted.
const live = " AND deleted = 0"

// Instance returns an instance that is not deleted.
func (s *Store) Instance(ctx context.Context, id string) (objects.Instance, error) {
	return s.instance(ctx, id, live)
}

// AnyInstance returns an instance, deleted or not.
func (s *Store) AnyInstance(ctx context.Context, id string) (objects.Instance, error) {
	return s.instance(ctx, id, "")
}

func (s *Store) instance(ctx context.Context, id, and string) (i objects.Instance, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		i.Object, _, err = s.load(ctx, tx, id, and)
		return err
	})
	if err != nil {
		return objects.Instance{}, fmt.Errorf("get instance %s: %w", id, err)
	}
	return i, nil
}

// load returns the shared object of a row and its revision.
func (s *Store) load(ctx context.Context, tx *sql.Tx, id, and string) (*objects.Object, int64, error) {
	var row, rev int64
	if err := tx.QueryRowContext(ctx, "SELECT id, rev FROM instances WHERE uuid = ?"+and, id).Scan(&row, &rev); err != nil {
		return nil, 0, err
	}
	if o := s.memo.get(row, rev); o != nil {
		return o, rev, nil
	}
	o, err := instances.one(ctx, tx, "WHERE id = ?", row)
	if err != nil {
		return nil, 0, err
	}
	s.memo.put(row, rev, o)
	return o, rev, nil
}

// UpdateInstance changes an instance that is not deleted: change gets a copy
// and what it sets in it is written, with the time of the change. When the
// instance is not in an expected state nothing is written and the error is a
// *StateError; errors of change are passed on. change runs in the transaction:
// it is short and does not use the store.
func (s *Store) UpdateInstance(ctx context.Context, id string, expect Expect, change func(objects.Instance) error) (objects.Instance, error) {
	return s.update(ctx, id, live, expect.then(change))
}

// UpdateAnyInstance is UpdateInstance for an instance that may be deleted.
func (s *Store) UpdateAnyInstance(ctx context.Context, id string, expect Expect, change func(objects.Instance) error) (objects.Instance, error) {
	return s.update(ctx, id, "", expect.then(change))
}

// then is a change that is made in an expected state, with its time.
func (e Expect) then(change func(objects.Instance) error) func(objects.Instance) error {
	return func(i objects.Instance) error {
		if err := e.check(i); err != nil {
			return err
		}
		if err := change(i); err != nil {
			return err
		}
		i.SetClean("updated_at", time.Now())
		return nil
	}
}

// SetInstance is UpdateInstance with the new values of fields, as
// objects.Object.Set takes them.
func (s *Store) SetInstance(ctx context.Context, id string, expect Expect, fields map[string]any) (objects.Instance, error) {
	return s.UpdateInstance(ctx, id, expect, func(i objects.Instance) error {
		apply(i.Object, fields)
		return nil
	})
}

// update is a read, change and write of a row with its revision.
func (s *Store) update(ctx context.Context, id, and string, change func(objects.Instance) error) (i objects.Instance, err error) {
	var rev int64
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		shared, r, err := s.load(ctx, tx, id, and)
		if err != nil {
			return err
		}
		rev = r + 1
		i = objects.Instance{Object: shared.Clone()}
		if err := change(i); err != nil {
			return err
		}
		return writeInstance(ctx, tx, i)
	})
	if err != nil {
		return objects.Instance{}, fmt.Errorf("update instance %s: %w", id, err)
	}
	s.memo.put(i.ID(), rev, i.Object)
	return i, nil
}

func writeInstance(ctx context.Context, tx *sql.Tx, i objects.Instance) error {
	instances.strip(i.Object)
	if err := instances.update(ctx, tx, i.Object); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "UPDATE instances SET rev = rev + 1 WHERE id = ?", i.ID())
	return err
}

func (e Expect) check(i objects.Instance) error {
	for _, c := range []struct {
		field  string
		states []string
	}{{"task_state", e.TaskState}, {"vm_state", e.VMState}} {
		if c.states == nil {
			continue
		}
		actual := i.String(c.field)
		ok := false
		for _, s := range c.states {
			ok = ok || s == actual
		}
		if !ok {
			return &StateError{UUID: i.UUID(), Field: c.field, Expected: c.states, Actual: actual}
		}
	}
	return nil
}

// HostCheck says whose instances may be destroyed.
type HostCheck int

const (
	// AnyHost: wherever it is.
	AnyHost HostCheck = iota
	// NoHost: only while it has no host; errdefs.ErrConflict otherwise.
	NoHost
)

// DestroyInstance marks an instance as deleted; the row stays for lists with
// deleted ones and changes-since. Its disks, ports, tags, moves and console
// tokens go. It returns the deleted row; one that is deleted already is
// errdefs.ErrNotFound.
func (s *Store) DestroyInstance(ctx context.Context, id string, check HostCheck) (i objects.Instance, err error) {
	var rev int64
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		shared, r, err := s.load(ctx, tx, id, live)
		if err != nil {
			return err
		}
		rev = r + 1
		i = objects.Instance{Object: shared.Clone()}
		if check == NoHost && i.Host() != "" {
			return fmt.Errorf("host changed: %w", errdefs.ErrConflict)
		}
		i.SetClean("deleted", true)
		i.SetClean("deleted_at", time.Now())
		tags := objects.New("TagList")
		tags.SetClean("objects", []any{})
		i.SetClean("tags", tags)
		if err := writeInstance(ctx, tx, i); err != nil {
			return err
		}
		for _, of := range []table{blockDevices, interfaces, consoleTokens} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+of.name+" WHERE instance_uuid = ?", id); err != nil {
				return err
			}
		}
		return endMigrations(ctx, tx, id)
	})
	if err != nil {
		return objects.Instance{}, fmt.Errorf("destroy instance %s: %w", id, err)
	}
	s.memo.put(i.ID(), rev, i.Object)
	return i, nil
}

// SaveInfoCache sets what is known of an instance's network; text is that of
// objects.NetworkInfo. The instance's own time of change stays.
func (s *Store) SaveInfoCache(ctx context.Context, id, text string) error {
	_, err := s.update(ctx, id, live, func(i objects.Instance) error {
		cache := newCache(i)
		cache.SetClean("network_info", text)
		cache.SetClean("updated_at", time.Now())
		i.SetClean("info_cache", cache)
		return nil
	})
	return err
}

// newCache is a complete copy of an instance's info cache.
func newCache(i objects.Instance) *objects.Object {
	cache := i.InfoCache().Clone()
	if cache == nil {
		cache = objects.New("InstanceInfoCache")
		cache.SetClean("network_info", "[]")
	}
	cache.SetClean("instance_uuid", i.UUID())
	infoCaches.complete(cache)
	return cache
}

// RequestSpec returns what was asked of the scheduler for an instance.
func (s *Store) RequestSpec(ctx context.Context, instance string) (objects.RequestSpec, error) {
	o, err := s.one(ctx, specs, "WHERE instance_uuid = ?", instance)
	if err != nil {
		return objects.RequestSpec{}, fmt.Errorf("get request spec of %s: %w", instance, err)
	}
	return objects.RequestSpec{Object: o}, nil
}

// SaveRequestSpec stores the request spec of the instance that it names.
func (s *Store) SaveRequestSpec(ctx context.Context, spec objects.RequestSpec) error {
	err := s.db.Write(ctx, func(tx *sql.Tx) error { return putSpec(ctx, tx, spec.Clone()) })
	if err != nil {
		return fmt.Errorf("save request spec of %s: %w", spec.InstanceUUID(), err)
	}
	return nil
}

func putSpec(ctx context.Context, tx *sql.Tx, spec *objects.Object) error {
	if _, err := tx.ExecContext(ctx, "DELETE FROM request_specs WHERE instance_uuid = ?", spec.String("instance_uuid")); err != nil {
		return err
	}
	return specs.insert(ctx, tx, spec)
}
