// Package metadata makes the documents by which a guest is told who it is, from
// its row: those of Nova's metadata API and those of a config drive. Formats
// follow nova/api/metadata/base.py, nova/virt/configdrive.py,
// nova/virt/netutils.py and nova/block_device.py of Zed. It does no I/O and may be
// imported by whoever has rows: the compute service and the embedded cloud.
package metadata
