package overlay

// PathsOnly makes s behave as on a kernel that takes the branches of an
// overlay by path only.
func (s *Snapshotter) PathsOnly() { s.pathsOnly.Store(true) }

// UsesPaths reports whether the kernel has refused branches by descriptor.
func (s *Snapshotter) UsesPaths() bool { return s.pathsOnly.Load() }
