package snapshot

// FindingKind says what is wrong.
type FindingKind string

// The kinds of findings, and how they are mended.
const (
	// FindingMode: a directory of the store is open to others. Set to 0700.
	FindingMode FindingKind = "wrong-mode"
	// FindingMissingDir: a directory that the store or a disk needs is gone. Made.
	FindingMissingDir FindingKind = "missing-directory"
	// FindingHalfMade: an interrupted call has left this. Removed.
	FindingHalfMade FindingKind = "half-made"
	// FindingUnrecorded: a layer of an earlier version has no manifest. Written.
	FindingUnrecorded FindingKind = "unrecorded-layer"
	// FindingDamagedLayer: content and manifest of a layer differ. Removed if
	// nothing refers to it.
	FindingDamagedLayer FindingKind = "damaged-layer"
	// FindingMissingLayer: a disk or a reference needs a layer that is not
	// here. Not mended: the image has to be imported again.
	FindingMissingLayer FindingKind = "missing-layer"
	// FindingOrphanLayer: nothing refers to a layer. Removed.
	FindingOrphanLayer FindingKind = "orphan-layer"
	// FindingDamagedDisk: a disk cannot be read as one. Not mended: it holds
	// somebody's data.
	FindingDamagedDisk FindingKind = "damaged-disk"
	// FindingMissingDisk: a reference names a disk that is not here. Not mended.
	FindingMissingDisk FindingKind = "missing-disk"
	// FindingOrphanDisk: nothing refers to a disk. Removed, if it is not mounted.
	FindingOrphanDisk FindingKind = "orphan-disk"
	// FindingOrphanMount: a mount below the store belongs to no disk. Taken down.
	FindingOrphanMount FindingKind = "orphan-mount"
	// FindingOrphanDevice: a loop device is over a file of the store that is
	// gone. Detached.
	FindingOrphanDevice FindingKind = "orphan-device"
	// FindingOrphanQuota: a quota belongs to no disk. Removed.
	FindingOrphanQuota FindingKind = "orphan-quota"
	// FindingOrphanRecord: a record of a chain, or a cached copy of one, is
	// nobody's. Removed.
	FindingOrphanRecord FindingKind = "orphan-record"
	// FindingForeign: something in the store is not the store's. Left alone.
	FindingForeign FindingKind = "foreign"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Kind FindingKind
	// What: a chain id, the key of a disk, or a path relative to the root.
	What string
	// Detail says what was found, for an operator.
	Detail string
	// Mended is true when it is well now. When mending failed Detail ends with
	// the reason.
	Mended bool
}

// References are everything that may still be needed. Whoever passes them has
// read them completely, and lets nothing new appear that is not among them
// until Check returns.
type References struct {
	// Layers are the chain ids of all images; the chains of disks that are
	// referred to need not be among them.
	Layers []string
	// Disks are the keys of all containers.
	Disks []string
}

// CheckRequest of a Check.
type CheckRequest struct {
	// Repair mends; without it nothing is changed.
	Repair bool
	// References say what is needed. With nil nothing is an orphan, and only
	// what is half made is ever removed.
	References *References
}
