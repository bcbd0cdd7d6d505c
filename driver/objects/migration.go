package objects

// Migration is a move of an instance. Follows nova/objects/migration.py,
// Migration 1.7.
type Migration struct{ *Object }

// Wire returns the object.
func (m Migration) Wire() *Object { return m.Object }

// UnmarshalJSON reads a Migration primitive.
func (m *Migration) UnmarshalJSON(raw []byte) error { return read(raw, "Migration", &m.Object) }

// ID is the row id.
func (m Migration) ID() int64 { return m.Int("id") }

// UUID is the consumer that holds the old side's allocation.
func (m Migration) UUID() string { return m.String("uuid") }

// InstanceUUID is the instance that moves.
func (m Migration) InstanceUUID() string { return m.String("instance_uuid") }

// SourceCompute and SourceNode are where it comes from.
func (m Migration) SourceCompute() string { return m.String("source_compute") }

// SourceNode is the hypervisor host name it comes from.
func (m Migration) SourceNode() string { return m.String("source_node") }

// DestCompute is the host it goes to.
func (m Migration) DestCompute() string { return m.String("dest_compute") }

// DestNode is the hypervisor host name it goes to.
func (m Migration) DestNode() string { return m.String("dest_node") }

// Status is for example "pre-migrating".
func (m Migration) Status() string { return m.String("status") }

// SetStatus sets it.
func (m Migration) SetStatus(status string) { m.Set("status", status) }

// MigrationType is migration, resize, live-migration or evacuation.
func (m Migration) MigrationType() string { return m.String("migration_type") }

// MigrationList is a list of moves. Follows nova/objects/migration.py,
// MigrationList 1.5.
type MigrationList struct{ *Object }

// Wire returns the object.
func (l MigrationList) Wire() *Object { return l.Object }

// UnmarshalJSON reads a MigrationList primitive.
func (l *MigrationList) UnmarshalJSON(raw []byte) error { return read(raw, "MigrationList", &l.Object) }

// All returns the moves in order.
func (l MigrationList) All() []Migration {
	return views(l.Objects("objects"), func(o *Object) Migration { return Migration{o} })
}
