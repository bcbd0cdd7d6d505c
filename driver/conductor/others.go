package conductor

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// BlockDevices is BlockDeviceMappingList.get_by_instance_uuid.
func (c *Client) BlockDevices(ctx context.Context, rc messaging.RequestContext, uuid string) ([]*objects.Object, error) {
	var list objects.BlockDeviceMappingList
	err := c.ClassAction(ctx, rc, "BlockDeviceMappingList", "get_by_instance_uuid", []any{uuid}, nil, &list)
	if err != nil {
		return nil, fmt.Errorf("get block devices of %s: %w", uuid, err)
	}
	return list.Objects("objects"), nil
}

// SaveBlockDevice is BlockDeviceMapping.save of the changed fields.
func (c *Client) SaveBlockDevice(ctx context.Context, rc messaging.RequestContext, bdm *objects.Object) error {
	if _, err := c.objectAction(ctx, rc, bdm.Sparse("id", "uuid", "instance_uuid"), bdm, "save", nil, nil); err != nil {
		return fmt.Errorf("save block device %d: %w", bdm.Int("id"), err)
	}
	return nil
}

// MigrationsByFilters is MigrationList.get_by_filters.
func (c *Client) MigrationsByFilters(ctx context.Context, rc messaging.RequestContext, filters map[string]any) ([]*objects.Object, error) {
	return c.migrations(ctx, rc, "get_by_filters", filters)
}

// MigrationsInProgress is MigrationList.get_in_progress_and_error of the host
// and node: every move that may take resources there.
func (c *Client) MigrationsInProgress(ctx context.Context, rc messaging.RequestContext, host, node string) ([]*objects.Object, error) {
	return c.migrations(ctx, rc, "get_in_progress_and_error", host, node)
}

func (c *Client) migrations(ctx context.Context, rc messaging.RequestContext, method string, args ...any) ([]*objects.Object, error) {
	var list objects.MigrationList
	if err := c.ClassAction(ctx, rc, "MigrationList", method, args, nil, &list); err != nil {
		return nil, err
	}
	return list.Objects("objects"), nil
}

// SaveMigration is Migration.save of the changed fields; as in SaveInstance,
// with a changed node goes the id of its row.
func (c *Client) SaveMigration(ctx context.Context, rc messaging.RequestContext, migration *objects.Object) error {
	if err := migrationLink().follow(ctx, c, rc, migration, migration); err != nil {
		return fmt.Errorf("save migration %s: %w", migration.String("uuid"), err)
	}
	if err := c.do(ctx, rc, migration, "save"); err != nil {
		return fmt.Errorf("save migration %s: %w", migration.String("uuid"), err)
	}
	return nil
}

// AuthorizeConsole is ConsoleAuthToken.authorize: conductor stores the token
// for ttl and returns it; a user's URL is access_url_base with it.
func (c *Client) AuthorizeConsole(ctx context.Context, rc messaging.RequestContext, token *objects.Object, ttl time.Duration) error {
	_, err := c.ObjectAction(ctx, rc, token, "authorize", []any{int(ttl.Seconds())}, nil)
	return err
}

// CleanConsoleAuths is ConsoleAuthToken.clean_console_auths_for_instance.
func (c *Client) CleanConsoleAuths(ctx context.Context, rc messaging.RequestContext, uuid string) error {
	return c.ClassAction(ctx, rc, "ConsoleAuthToken", "clean_console_auths_for_instance", []any{uuid}, nil, nil)
}

// CleanExpiredConsoleAuths is ConsoleAuthToken.clean_expired_console_auths.
func (c *Client) CleanExpiredConsoleAuths(ctx context.Context, rc messaging.RequestContext) error {
	return c.ClassAction(ctx, rc, "ConsoleAuthToken", "clean_expired_console_auths", nil, nil, nil)
}

// GetInstanceGroup is InstanceGroup.get_by_instance_uuid. Remote
// InstanceGroupNotFound if the instance is in none.
func (c *Client) GetInstanceGroup(ctx context.Context, rc messaging.RequestContext, uuid string) (*objects.Object, error) {
	return c.group(ctx, rc, "get_by_instance_uuid", uuid)
}

// GetInstanceGroupByHint is InstanceGroup.get_by_hint, of a group's UUID or name.
func (c *Client) GetInstanceGroupByHint(ctx context.Context, rc messaging.RequestContext, hint string) (*objects.Object, error) {
	return c.group(ctx, rc, "get_by_hint", hint)
}

func (c *Client) group(ctx context.Context, rc messaging.RequestContext, method, arg string) (*objects.Object, error) {
	var g objects.InstanceGroup
	if err := c.ClassAction(ctx, rc, "InstanceGroup", method, []any{arg}, nil, &g); err != nil {
		return nil, fmt.Errorf("get server group for %s: %w", arg, err)
	}
	return g.Object, nil
}

// BuildInstances casts compute_task.build_instances: the reschedule of a
// failed build. args are its keyword arguments, complete: instances, image,
// filter_properties, admin_password, injected_files, requested_networks,
// security_groups, request_spec and host_lists.
func (c *Client) BuildInstances(ctx context.Context, rc messaging.RequestContext, args map[string]any) error {
	t := messaging.Target{Topic: topic, Namespace: "compute_task", Version: "1.19"}
	if err := c.caller.Cast(ctx, rc, t, "build_instances", args); err != nil {
		return fmt.Errorf("reschedule: %w", err)
	}
	return nil
}

// MigrateServer casts compute_task.migrate_server: the reschedule of a resize
// that a host has refused. args are its keyword arguments, complete.
func (c *Client) MigrateServer(ctx context.Context, rc messaging.RequestContext, args map[string]any) error {
	t := messaging.Target{Topic: topic, Namespace: "compute_task", Version: "1.20"}
	if err := c.caller.Cast(ctx, rc, t, "migrate_server", args); err != nil {
		return fmt.Errorf("reschedule resize: %w", err)
	}
	return nil
}

// UnconfirmedMigrations is MigrationList.get_unconfirmed_by_dest_compute: moves
// to the host that have been finished for longer than the window.
func (c *Client) UnconfirmedMigrations(ctx context.Context, rc messaging.RequestContext, window time.Duration, host string) ([]*objects.Object, error) {
	return c.migrations(ctx, rc, "get_unconfirmed_by_dest_compute", int(window.Seconds()), host)
}
