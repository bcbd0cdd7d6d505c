package placement

import "slices"

// Traits with a meaning of their own.
const (
	// TraitComputeNode marks the root provider of every compute host.
	TraitComputeNode = "COMPUTE_NODE"
	// TraitDisabled keeps the scheduler away while the service is disabled.
	TraitDisabled = "COMPUTE_STATUS_DISABLED"
	// TraitOwnerNova tells providers of Nova from those of other services. A
	// scheduler asks for it once all computes report service version 73; a
	// Placement older than that does not know it.
	TraitOwnerNova = "OWNER_NOVA"
)

// ServiceTraits returns the standard traits that a compute service sets or
// takes away on its root provider, whatever driver it has: what Wanted.Owned
// should hold, so that traits of a nova-compute which ran on the host before
// go away. The caller may change the result.
//
// Source: nova/virt/driver.py (CAPABILITY_TRAITS_MAP), os_traits/compute.
func ServiceTraits() []string { return slices.Clone(serviceTraits[:]) }

var serviceTraits = [...]string{
	TraitComputeNode, TraitDisabled, TraitOwnerNova,
	"COMPUTE_ACCELERATORS", "COMPUTE_ADDRESS_SPACE_EMULATED", "COMPUTE_ADDRESS_SPACE_PASSTHROUGH", "COMPUTE_DEVICE_TAGGING",
	"COMPUTE_EPHEMERAL_ENCRYPTION", "COMPUTE_EPHEMERAL_ENCRYPTION_LUKS", "COMPUTE_EPHEMERAL_ENCRYPTION_PLAIN",
	"COMPUTE_IMAGE_TYPE_AKI", "COMPUTE_IMAGE_TYPE_AMI", "COMPUTE_IMAGE_TYPE_ARI", "COMPUTE_IMAGE_TYPE_ISO",
	"COMPUTE_IMAGE_TYPE_PLOOP", "COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_IMAGE_TYPE_VDI",
	"COMPUTE_IMAGE_TYPE_VHD", "COMPUTE_IMAGE_TYPE_VHDX", "COMPUTE_IMAGE_TYPE_VMDK",
	"COMPUTE_MEM_BACKING_FILE", "COMPUTE_NET_ATTACH_INTERFACE", "COMPUTE_NET_ATTACH_INTERFACE_WITH_TAG",
	"COMPUTE_REMOTE_MANAGED_PORTS", "COMPUTE_RESCUE_BFV", "COMPUTE_SAME_HOST_COLD_MIGRATE",
	"COMPUTE_SECURITY_STATELESS_FIRMWARE", "COMPUTE_SECURITY_UEFI_SECURE_BOOT", "COMPUTE_SOCKET_PCI_NUMA_AFFINITY",
	"COMPUTE_STORAGE_VIRTIO_FS", "COMPUTE_TRUSTED_CERTS", "COMPUTE_VOLUME_ATTACH_WITH_TAG", "COMPUTE_VOLUME_EXTEND",
	"COMPUTE_VOLUME_MULTI_ATTACH",
}
