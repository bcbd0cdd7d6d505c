package objects

// Flavor is a size. Follows nova/objects/flavor.py, Flavor 1.2.
type Flavor struct{ *Object }

// Wire returns the object.
func (f Flavor) Wire() *Object { return f.Object }

// UnmarshalJSON reads a Flavor primitive.
func (f *Flavor) UnmarshalJSON(raw []byte) error { return read(raw, "Flavor", &f.Object) }

// ID is the row id (instance_type_id of an instance).
func (f Flavor) ID() int64 { return f.Int("id") }

// FlavorID is the id that the API shows.
func (f Flavor) FlavorID() string { return f.String("flavorid") }

// FlavorName is the name that the API shows.
func (f Flavor) FlavorName() string { return f.String("name") }

// MemoryMB is in MiB.
func (f Flavor) MemoryMB() int64 { return f.Int("memory_mb") }

// VCPUs is the number of virtual CPUs.
func (f Flavor) VCPUs() int64 { return f.Int("vcpus") }

// RootGB is in GiB; 0 asks for no limit.
func (f Flavor) RootGB() int64 { return f.Int("root_gb") }

// EphemeralGB is in GiB.
func (f Flavor) EphemeralGB() int64 { return f.Int("ephemeral_gb") }

// SwapMB is in MiB.
func (f Flavor) SwapMB() int64 { return f.Int("swap") }

// ExtraSpecs is a copy of the extra specs.
func (f Flavor) ExtraSpecs() map[string]string { return f.Strings("extra_specs") }
