package conductor

import (
	"context"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

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

// migrationsByFilters is MigrationList.get_by_filters.
func (c *Conductor) migrationsByFilters(ctx context.Context, in call) (any, error) {
	filters, ok := in.arg(0, "filters").(map[string]any)
	if !ok {
		return nil, builtin("ValueError", "filters is a %T", in.arg(0, "filters"))
	}
	text := func(name string) string { s, _ := filters[name].(string); return s }
	q := cell.MigrationQuery{
		Host: text("host"), Node: text("node"), Source: text("source_compute"), Type: text("migration_type"),
		InstanceUUID: text("instance_uuid"), UserID: text("user_id"), ProjectID: text("project_id"),
		Statuses: texts(filters["status"]), UUIDs: texts(filters["uuid"]),
		ChangedSince: timeOf(filters["changes-since"]), ChangedBefore: timeOf(filters["changes-before"]),
		Deleted: in.readsDeleted(),
	}
	if hidden, ok := filters["hidden"].(bool); ok {
		q.Hidden = &hidden
	}
	if q.Host != "" {
		q.Source = ""
	}
	rows, err := c.o.Store.Migrations(ctx, q)
	if err != nil {
		return nil, err
	}
	return list("MigrationList", rows), nil
}

func (c *Conductor) migrationsInProgress(ctx context.Context, in call) (any, error) {
	rows, err := c.o.Store.Migrations(ctx, cell.MigrationQuery{Host: in.text(0, "host"), Node: in.text(1, "node"), InProgress: true})
	if err != nil {
		return nil, err
	}
	return list("MigrationList", rows), nil
}
