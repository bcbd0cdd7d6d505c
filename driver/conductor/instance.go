package conductor

import (
	"context"
	"fmt"
	"slices"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Expect is the compare-and-swap of Instance.save: the states that the stored
// row must be in. The zero value means no check. The empty string stands for
// null ("no task"). Conductor checks it only when a plain column (a state, the
// host, a time …) is saved in the same call.
type Expect struct {
	VMState   []string
	TaskState []string
}

func (e Expect) kwargs() map[string]any {
	k := map[string]any{}
	for name, states := range map[string][]string{"expected_vm_state": e.VMState, "expected_task_state": e.TaskState} {
		if len(states) == 0 {
			continue
		}
		list := make([]any, len(states))
		for i, s := range states {
			if s != "" {
				list[i] = s
			}
		}
		k[name] = list
	}
	return k
}

// notSaved never goes out with an instance: conductor ignores the first five,
// and the last two are rows of their own that have calls of their own. Marks on
// them (a build arrives with some) mean nothing.
var notSaved = [...]string{"ec2_ids", "tags", "pci_devices", "services", "fault", "info_cache", "security_groups"}

// flavorTrio is stored together: conductor replaces all three when one is
// marked, and one that is missing would be loaded over what was sent.
var flavorTrio = [...]string{"flavor", "old_flavor", "new_flavor"}

// SaveInstance is Instance.save of the changed fields and nothing else: the
// message holds id, uuid and what is marked. On nil the answer's updates are
// merged into inst and its marks cleared. Without a mark and an expectation
// nothing is sent.
//
// metadata and system_metadata are replaced as a whole: what is marked must be
// the full map. A changed flavor needs flavor, old_flavor and new_flavor to be
// loaded (errdefs.ErrConflict). With a changed node goes the id of its row,
// where conductor is new enough to have that. The remote exceptions InstanceNotFound,
// UnexpectedTaskStateError and UnexpectedDeletingTaskStateError are the ones to
// expect.
func (c *Client) SaveInstance(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, expect Expect) error {
	send := inst.Sparse("id", "uuid")
	for _, field := range notSaved {
		send.Unset(field)
	}
	if err := keepTrio(inst, send); err != nil {
		return fmt.Errorf("save instance %s: %w", inst.String("uuid"), err)
	}
	if err := instanceLink().follow(ctx, c, rc, inst, send); err != nil {
		return fmt.Errorf("save instance %s: %w", inst.String("uuid"), err)
	}
	kwargs := expect.kwargs()
	if len(send.Changes()) == 0 && len(kwargs) == 0 {
		return nil
	}
	if _, err := c.objectAction(ctx, rc, send, inst, "save", nil, kwargs); err != nil {
		return fmt.Errorf("save instance %s: %w", inst.String("uuid"), err)
	}
	return nil
}

func keepTrio(inst, send *objects.Object) error {
	if !slices.ContainsFunc(flavorTrio[:], send.Has) {
		return nil
	}
	for _, field := range flavorTrio {
		if !inst.Has(field) {
			return fmt.Errorf("a flavor changed and %s is not loaded: %w", field, errdefs.ErrConflict)
		}
		send.Set(field, inst.Get(field))
	}
	return nil
}

// DestroyInstance is Instance.destroy: the row is marked as deleted. With a
// host in inst it is unconditional; without one conductor refuses
// (ObjectActionError) when the row has a host meanwhile. On nil inst holds the
// deleted row.
func (c *Client) DestroyInstance(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	send := &objects.Object{Name: inst.Name, Version: inst.Version}
	for _, field := range []string{"id", "uuid", "host"} {
		if inst.Has(field) {
			send.SetClean(field, inst.Get(field))
		}
	}
	if _, err := c.objectAction(ctx, rc, send, inst, "destroy", nil, nil); err != nil {
		return fmt.Errorf("destroy instance %s: %w", inst.String("uuid"), err)
	}
	return nil
}

// GetInstance is Instance.get_by_uuid. attrs are exactly the joined fields
// wanted (metadata is one too, fault is not: only lists have it); none asks for
// info_cache and security_groups. InstanceNotFound if absent or, unless rc reads
// deleted rows, deleted.
func (c *Client) GetInstance(ctx context.Context, rc messaging.RequestContext, uuid string, attrs ...string) (*objects.Object, error) {
	kwargs := map[string]any{}
	if len(attrs) > 0 {
		kwargs["expected_attrs"] = attrs
	}
	var inst objects.Instance
	if err := c.ClassAction(ctx, rc, "Instance", "get_by_uuid", []any{uuid}, kwargs, &inst); err != nil {
		return nil, fmt.Errorf("get instance %s: %w", uuid, err)
	}
	return inst.Object, nil
}

// InstancesByHost is InstanceList.get_by_host. attrs are exactly the joined
// fields wanted, none for no joins. An unknown host has no instances.
func (c *Client) InstancesByHost(ctx context.Context, rc messaging.RequestContext, host string, attrs ...string) ([]*objects.Object, error) {
	return c.instances(ctx, rc, "get_by_host", []any{host}, attrs)
}

// InstancesByNode is InstanceList.get_by_host_and_node.
func (c *Client) InstancesByNode(ctx context.Context, rc messaging.RequestContext, host, node string, attrs ...string) ([]*objects.Object, error) {
	return c.instances(ctx, rc, "get_by_host_and_node", []any{host, node}, attrs)
}

// InstancesByFilters is InstanceList.get_by_filters. Deleted rows come only
// with a filter deleted and an rc that reads them.
func (c *Client) InstancesByFilters(ctx context.Context, rc messaging.RequestContext, filters map[string]any, attrs ...string) ([]*objects.Object, error) {
	return c.instances(ctx, rc, "get_by_filters", []any{filters}, attrs)
}

func (c *Client) instances(ctx context.Context, rc messaging.RequestContext, method string, args []any, attrs []string) ([]*objects.Object, error) {
	if attrs == nil {
		attrs = []string{}
	}
	var list objects.InstanceList
	kwargs := map[string]any{"expected_attrs": attrs}
	if err := c.ClassAction(ctx, rc, "InstanceList", method, args, kwargs, &list); err != nil {
		return nil, err
	}
	return list.Objects("objects"), nil
}
