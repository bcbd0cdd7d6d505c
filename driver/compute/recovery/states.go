package recovery

// The VM states that the table reads (nova/compute/vm_states.py).
const (
	vmActive      = "active"
	vmBuilding    = "building"
	vmPaused      = "paused"
	vmSuspended   = "suspended"
	vmStopped     = "stopped"
	vmDeleted     = "deleted"
	vmSoftDeleted = "soft-delete"
	vmError       = "error"
	vmRescued     = "rescued"
	vmShelved     = "shelved"
	vmOffloaded   = "shelved_offloaded"
)

// The task states that the table reads (nova/compute/task_states.py).
const (
	taskScheduling         = "scheduling"
	taskBlockDeviceMapping = "block_device_mapping"
	taskNetworking         = "networking"
	taskSpawning           = "spawning"

	taskRebuilding      = "rebuilding"
	taskRebuildBDM      = "rebuild_block_device_mapping"
	taskRebuildSpawning = "rebuild_spawning"

	taskSnapshotPending = "image_snapshot_pending"
	taskSnapshot        = "image_snapshot"
	taskUploadPending   = "image_pending_upload"
	taskUploading       = "image_uploading"

	taskBackup         = "image_backup"
	taskShelving       = "shelving"
	taskShelvingWait   = "shelving_image_pending_upload"
	taskShelvingUpload = "shelving_image_uploading"
	taskOffloading     = "shelving_offloading"

	taskResizePrep      = "resize_prep"
	taskResizeMigrating = "resize_migrating"
	taskResizeMigrated  = "resize_migrated"
	taskResizeFinish    = "resize_finish"
	taskResizeReverting = "resize_reverting"
	taskMigrating       = "migrating"

	taskDeleting    = "deleting"
	taskPoweringOff = "powering-off"
	taskPoweringOn  = "powering-on"
	taskSuspending  = "suspending"
	taskResuming    = "resuming"
	taskRescuing    = "rescuing"
	taskUnrescuing  = "unrescuing"
	taskPausing     = "pausing"
	taskUnpausing   = "unpausing"

	taskRebootPending     = "reboot_pending"
	taskRebootStarted     = "reboot_started"
	taskRebootPendingHard = "reboot_pending_hard"
	taskRebootStartedHard = "reboot_started_hard"
)
