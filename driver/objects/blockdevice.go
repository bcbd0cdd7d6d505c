package objects

// BlockDeviceMapping is one disk of an instance. Follows
// nova/objects/block_device.py, BlockDeviceMapping 1.21.
type BlockDeviceMapping struct{ *Object }

// Wire returns the object.
func (b BlockDeviceMapping) Wire() *Object { return b.Object }

// UnmarshalJSON reads a BlockDeviceMapping primitive.
func (b *BlockDeviceMapping) UnmarshalJSON(raw []byte) error {
	return read(raw, "BlockDeviceMapping", &b.Object)
}

// ID is the row id.
func (b BlockDeviceMapping) ID() int64 { return b.Int("id") }

// SourceType is blank, image, snapshot or volume.
func (b BlockDeviceMapping) SourceType() string { return b.String("source_type") }

// DestinationType is local or volume.
func (b BlockDeviceMapping) DestinationType() string { return b.String("destination_type") }

// GuestFormat is for example swap or ext4, "" when null.
func (b BlockDeviceMapping) GuestFormat() string { return b.String("guest_format") }

// BootIndex orders boot devices; 0 is the root. -1 when null.
func (b BlockDeviceMapping) BootIndex() int64 {
	if b.IsNull("boot_index") {
		return -1
	}
	return b.Int("boot_index")
}

// DeviceName is for example /dev/vda, "" when not chosen yet.
func (b BlockDeviceMapping) DeviceName() string { return b.String("device_name") }

// SetDeviceName sets it.
func (b BlockDeviceMapping) SetDeviceName(name string) { b.Set("device_name", name) }

// ImageID is the image of an image-backed disk, "" when null.
func (b BlockDeviceMapping) ImageID() string { return b.String("image_id") }

// VolumeID is the Cinder volume, "" when null.
func (b BlockDeviceMapping) VolumeID() string { return b.String("volume_id") }

// VolumeSizeGB is in GiB, 0 when null.
func (b BlockDeviceMapping) VolumeSizeGB() int64 { return b.Int("volume_size") }

// Tag is the device tag, "" when none.
func (b BlockDeviceMapping) Tag() string { return b.String("tag") }

// BlockDeviceMappingList is the disks of an instance. Follows
// nova/objects/block_device.py, BlockDeviceMappingList 1.18.
type BlockDeviceMappingList struct{ *Object }

// NewBlockDeviceMappingList returns a list of the given mappings.
func NewBlockDeviceMappingList(mappings ...*Object) BlockDeviceMappingList {
	return BlockDeviceMappingList{listOf("BlockDeviceMappingList", mappings)}
}

// Wire returns the object.
func (l BlockDeviceMappingList) Wire() *Object { return l.Object }

// UnmarshalJSON reads a BlockDeviceMappingList primitive.
func (l *BlockDeviceMappingList) UnmarshalJSON(raw []byte) error {
	return read(raw, "BlockDeviceMappingList", &l.Object)
}

// All returns the mappings in order.
func (l BlockDeviceMappingList) All() []BlockDeviceMapping {
	return views(l.Objects("objects"), func(o *Object) BlockDeviceMapping { return BlockDeviceMapping{o} })
}
