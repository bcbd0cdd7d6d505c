// Package config reads gantry's configuration: files in nova.conf's format,
// the environment and command line overrides.
//
// Config is one plain struct; each field says its key, its default and what it
// means. Option names, defaults and units are Nova's and oslo's where Nova has
// the option, so that the nova.conf of the host works as it is; gantry's own
// options stand in [gantry]. The package imports nothing of ours and is used
// only by cmd, internal/daemon and functional.
package config

import "time"

// Config is the whole configuration. Durations are written in seconds.
type Config struct {
	Default       Default       `section:"DEFAULT"`
	Rabbit        Rabbit        `section:"oslo_messaging_rabbit"`
	Notifications Notifications `section:"oslo_messaging_notifications"`
	Events        Events        `section:"notifications"`
	Keystone      Auth          `section:"keystone_authtoken"`
	ServiceUser   ServiceUser   `section:"service_user"`
	Placement     Auth          `section:"placement"`
	Neutron       Neutron       `section:"neutron"`
	OVS           OVS           `section:"os_vif_ovs"`
	Glance        Glance        `section:"glance"`
	Compute       Compute       `section:"compute"`
	ImageCache    ImageCache    `section:"image_cache"`
	VNC           VNC           `section:"vnc"`
	SerialConsole SerialConsole `section:"serial_console"`
	ConsoleAuth   ConsoleAuth   `section:"consoleauth"`
	Reports       Reports       `section:"oslo_reports"`
	Gantry        Gantry        `section:"gantry"`
}

// Default is [DEFAULT] (nova/conf/base.py, netconf.py, compute.py, rpc.py).
type Default struct {
	Host         string `key:"host" doc:"name of this compute service; equals the L2 agent's host; default: the machine's host name"`
	TransportURL string `key:"transport_url" doc:"message broker of the cell: rabbit://USER:PASS@HOST:PORT[,...]/VHOST" required:"true"`
	MyIP         string `key:"my_ip" doc:"management address of this host; default: the address of the default route"`
	StatePath    string `key:"state_path" default:"/var/lib/gantry" doc:"directory for everything that must survive a restart"`
	Debug        bool   `key:"debug" default:"false" doc:"log at debug level"`
	LogFile      string `key:"log_file" doc:"log file; default: standard error"`

	RPCResponseTimeout time.Duration `key:"rpc_response_timeout" default:"60" doc:"longest wait for the answer of a call"`
	ControlExchange    string        `key:"control_exchange" default:"nova" doc:"AMQP exchange of the RPC topics"`

	InstanceNameTemplate string `key:"instance_name_template" default:"instance-%08x" doc:"Nova's internal name of an instance"`

	VIFPluggingTimeout time.Duration `key:"vif_plugging_timeout" default:"300" doc:"longest wait for network-vif-plugged; 0 does not wait"`
	VIFPluggingIsFatal bool          `key:"vif_plugging_is_fatal" default:"true" doc:"a port that does not come up fails the build"`

	MaxConcurrentBuilds    int `key:"max_concurrent_builds" default:"10" doc:"builds at a time; 0 means no limit"`
	MaxConcurrentSnapshots int `key:"max_concurrent_snapshots" default:"5" doc:"snapshots at a time; 0 means no limit"`

	ReservedHostCPUs     int64   `key:"reserved_host_cpus" default:"0" doc:"CPUs kept from instances"`
	ReservedHostMemoryMB int64   `key:"reserved_host_memory_mb" default:"512" doc:"memory kept from instances (MiB)"`
	ReservedHostDiskMB   int64   `key:"reserved_host_disk_mb" default:"0" doc:"disk kept from instances (MiB)"`
	CPUAllocationRatio   float64 `key:"cpu_allocation_ratio" default:"0" doc:"0 leaves what placement has"`
	RAMAllocationRatio   float64 `key:"ram_allocation_ratio" default:"0" doc:"0 leaves what placement has"`
	DiskAllocationRatio  float64 `key:"disk_allocation_ratio" default:"0" doc:"0 leaves what placement has"`
	InitialCPURatio      float64 `key:"initial_cpu_allocation_ratio" default:"16.0" doc:"ratio of a new provider"`
	InitialRAMRatio      float64 `key:"initial_ram_allocation_ratio" default:"1.5" doc:"ratio of a new provider"`
	InitialDiskRatio     float64 `key:"initial_disk_allocation_ratio" default:"1.0" doc:"ratio of a new provider"`

	ReportInterval              time.Duration `key:"report_interval" default:"10" doc:"time between two reports of being up"`
	PeriodicFuzzyDelay          time.Duration `key:"periodic_fuzzy_delay" default:"60" doc:"longest random delay of the first periodic run"`
	UpdateResourcesInterval     time.Duration `key:"update_resources_interval" default:"0" doc:"0 means each minute, negative is off"`
	SyncPowerStateInterval      time.Duration `key:"sync_power_state_interval" default:"600" doc:"0 means each minute, negative is off"`
	HealInstanceInfoInterval    time.Duration `key:"heal_instance_info_cache_interval" default:"60" doc:"0 means each minute, negative is off"`
	RunningDeletedPollInterval  time.Duration `key:"running_deleted_instance_poll_interval" default:"1800" doc:"look for guests whose row is deleted"`
	InstanceDeleteInterval      time.Duration `key:"instance_delete_interval" default:"300" doc:"remove files of deleted rows"`
	MaximumDeleteAttempts       int           `key:"maximum_instance_delete_attempts" default:"5" doc:"tries to remove the files of a deleted row"`
	ReclaimInstanceInterval     time.Duration `key:"reclaim_instance_interval" default:"0" doc:"really delete soft-deleted instances after this; 0 is off"`
	InstanceBuildTimeout        time.Duration `key:"instance_build_timeout" default:"0" doc:"a build that takes longer becomes an error; 0 is off"`
	RescueTimeout               time.Duration `key:"rescue_timeout" default:"0" doc:"a rescued instance has its own system again after this; 0 is never"`
	ResizeConfirmWindow         time.Duration `key:"resize_confirm_window" default:"0" doc:"a resize that nobody confirms or reverts is confirmed after this; 0 is off"`
	ShelvedOffloadTime          time.Duration `key:"shelved_offload_time" default:"0" doc:"time that a shelved instance keeps its place on the host; negative is for ever"`
	ShelvedPollInterval         time.Duration `key:"shelved_poll_interval" default:"3600" doc:"time between two looks for shelved instances whose time is over"`
	SchedulerInstanceSync       time.Duration `key:"scheduler_instance_sync_interval" default:"120" doc:"tell the scheduler which instances are here"`
	ShutdownTimeout             time.Duration `key:"shutdown_timeout" default:"60" doc:"time that a guest gets to stop by itself; 0 kills at once"`
	ForceConfigDrive            bool          `key:"force_config_drive" default:"false" doc:"every new instance gets a config drive, asked for or not"`
	ResumeGuestsStateOnHostBoot bool          `key:"resume_guests_state_on_host_boot" default:"false" doc:"start instances that ran before a reboot of the host"`
}

// Rabbit is [oslo_messaging_rabbit] (oslo_messaging/_drivers/impl_rabbit.py, amqp.py).
type Rabbit struct {
	SSL                    bool          `key:"ssl" default:"false" doc:"connect with TLS"`
	SSLCAFile              string        `key:"ssl_ca_file" doc:"certificates that sign the broker's; the broker is verified only with this set"`
	SSLCertFile            string        `key:"ssl_cert_file" doc:"client certificate"`
	SSLKeyFile             string        `key:"ssl_key_file" doc:"client key"`
	DurableQueues          bool          `key:"amqp_durable_queues" default:"false" doc:"durable topic queues"`
	AutoDelete             bool          `key:"amqp_auto_delete" default:"false" doc:"auto-delete topic queues"`
	HAQueues               bool          `key:"rabbit_ha_queues" default:"false" doc:"classic mirrored queues"`
	QuorumQueue            bool          `key:"rabbit_quorum_queue" default:"false" doc:"quorum topic queues"`
	QuorumDeliveryLimit    int           `key:"rabbit_quorum_delivery_limit" default:"0" doc:"x-delivery-limit of quorum queues"`
	TransientQueuesTTL     time.Duration `key:"rabbit_transient_queues_ttl" default:"1800" doc:"x-expires of reply and fan-out queues"`
	TransientQuorumQueue   bool          `key:"rabbit_transient_quorum_queue" default:"false" doc:"reply and fan-out queues as quorum queues"`
	PrefetchCount          int           `key:"rabbit_qos_prefetch_count" default:"0" doc:"unacknowledged messages; 0 means no limit"`
	HeartbeatTimeout       time.Duration `key:"heartbeat_timeout_threshold" default:"60" doc:"the broker is gone after this long without a sign"`
	HeartbeatRate          int           `key:"heartbeat_rate" default:"2" doc:"checks in that time"`
	RetryInterval          time.Duration `key:"rabbit_retry_interval" default:"1" doc:"first pause between connection tries"`
	RetryBackoff           time.Duration `key:"rabbit_retry_backoff" default:"2" doc:"growth of that pause"`
	IntervalMax            time.Duration `key:"rabbit_interval_max" default:"30" doc:"longest pause"`
	ReconnectDelay         time.Duration `key:"kombu_reconnect_delay" default:"1" doc:"extra pause before a reconnect"`
	MissingConsumerTimeout time.Duration `key:"kombu_missing_consumer_retry_timeout" default:"60" doc:"how long a reply waits for its queue to come back"`
}

// Notifications is [oslo_messaging_notifications].
type Notifications struct {
	Driver string   `key:"driver" doc:"messaging or messagingv2 to send notifications, empty or noop for none"`
	Topics []string `key:"topics" default:"notifications" doc:"queues of the notifications"`
}

// Events is [notifications] (nova/conf/notifications.py).
type Events struct {
	Format       string   `key:"notification_format" default:"unversioned" choices:"unversioned|versioned|both" doc:"which notifications are sent where a driver is named in [oslo_messaging_notifications]: unversioned, versioned or both"`
	Topics       []string `key:"versioned_notifications_topics" default:"versioned_notifications" doc:"queues of the versioned notifications"`
	BlockDevices bool     `key:"bdms_in_notifications" default:"false" doc:"list volumes in versioned notifications; no instance has one"`
}

// Auth is the usual set of keystoneauth options of one section.
type Auth struct {
	AuthURL           string        `key:"auth_url" doc:"identity service"`
	AuthType          string        `key:"auth_type" default:"password" doc:"password, v3password or v3applicationcredential"`
	Username          string        `key:"username" doc:"service user"`
	UserID            string        `key:"user_id" doc:"service user by id"`
	Password          string        `key:"password" secret:"true" doc:"its password"`
	UserDomainName    string        `key:"user_domain_name" doc:"its domain by name"`
	UserDomainID      string        `key:"user_domain_id" doc:"its domain by id"`
	ProjectName       string        `key:"project_name" doc:"its project"`
	ProjectID         string        `key:"project_id" doc:"its project by id"`
	ProjectDomainName string        `key:"project_domain_name" doc:"the project's domain by name"`
	ProjectDomainID   string        `key:"project_domain_id" doc:"the project's domain by id"`
	AppCredentialID   string        `key:"application_credential_id" doc:"application credential"`
	AppCredentialKey  string        `key:"application_credential_secret" secret:"true" doc:"its secret"`
	RegionName        string        `key:"region_name" doc:"region of the endpoint"`
	ValidInterfaces   []string      `key:"valid_interfaces" default:"internal,public" doc:"kinds of endpoint, best first"`
	EndpointOverride  string        `key:"endpoint_override" doc:"use this endpoint instead of the catalog's"`
	CAFile            string        `key:"cafile" doc:"certificates that sign the services'"`
	CertFile          string        `key:"certfile" doc:"client certificate"`
	KeyFile           string        `key:"keyfile" doc:"client key"`
	Insecure          bool          `key:"insecure" default:"false" doc:"do not verify certificates"`
	Timeout           time.Duration `key:"timeout" default:"60" doc:"longest wait for an answer"`
	ConnectRetries    int           `key:"connect_retries" default:"2" doc:"tries after a failed connection"`
}

// ServiceUser is [service_user].
type ServiceUser struct {
	Auth
	SendServiceUserToken bool `key:"send_service_user_token" default:"false" doc:"send our token beside the user's, so that an expired one is accepted"`
}

// Neutron is [neutron].
type Neutron struct {
	Auth
	OVSBridge             string        `key:"ovs_bridge" default:"br-int" doc:"integration bridge"`
	ExtensionSyncInterval time.Duration `key:"extension_sync_interval" default:"600" doc:"how long the list of extensions is kept"`
}

// OVS is [os_vif_ovs] (vif_plug_ovs/ovs.py).
type OVS struct {
	Connection string        `key:"ovsdb_connection" default:"tcp:127.0.0.1:6640" doc:"database of Open vSwitch: tcp:HOST:PORT or unix:PATH; asked only for ports of VIF type ovs"`
	Timeout    time.Duration `key:"ovs_vsctl_timeout" default:"120" doc:"how long it may take to answer; 0 is for ever"`
	Isolate    bool          `key:"isolate_vif" default:"false" doc:"new ports pass nothing until the agent has given them their network; only with Neutron's openvswitch agent"`
}

// Glance is [glance].
type Glance struct {
	Auth
	APIServers []string `key:"api_servers" doc:"image service endpoints, when not from the catalog"`
	NumRetries int      `key:"num_retries" default:"3" doc:"tries after a failed download"`
	Verify     bool     `key:"verify_glance_signatures" default:"false" doc:"boot only images whose signatures are verified: gantry verifies none, and so boots none"`
}

// Compute is [compute].
type Compute struct {
	BuildFailureThreshold int    `key:"consecutive_build_service_disable_threshold" default:"10" doc:"0 stops counting failed builds"`
	CPUDedicatedSet       string `key:"cpu_dedicated_set" doc:"processors that instances with hw:cpu_policy=dedicated have alone, as 4-12,^8,15"`
	CPUSharedSet          string `key:"cpu_shared_set" doc:"processors that all other instances float over; without either set that is all, with only cpu_dedicated_set none"`
}

// ImageCache is [image_cache].
type ImageCache struct {
	ManagerInterval time.Duration `key:"manager_interval" default:"2400" doc:"time between looks for images that nothing needs; 0 is a minute, negative is never"`
	RemoveUnused    bool          `key:"remove_unused_base_images" default:"true" doc:"remove images that no instance has had for long"`
	MinimumAge      time.Duration `key:"remove_unused_original_minimum_age_seconds" default:"86400" doc:"how long that is"`
}

// VNC is [vnc] (nova/conf/vnc.py).
type VNC struct {
	Enabled     bool     `key:"enabled" default:"true" doc:"serve the consoles of instances as screens by VNC"`
	Listen      string   `key:"server_listen" default:"127.0.0.1" doc:"address that the consoles listen on; proxies must reach it and nobody else should"`
	ProxyClient string   `key:"server_proxyclient_address" default:"127.0.0.1" doc:"that address as the proxies see it"`
	BaseURL     string   `key:"novncproxy_base_url" default:"http://127.0.0.1:6080/vnc_auto.html" doc:"page of the proxy, as users see it"`
	AuthSchemes []string `key:"auth_schemes" default:"none" doc:"how proxies connect: none, vencrypt (TLS) or both; vencrypt needs [gantry] vnc_cert and vnc_key"`
}

// SerialConsole is [serial_console] (nova/conf/serial_console.py).
type SerialConsole struct {
	Enabled     bool   `key:"enabled" default:"false" doc:"serve the consoles of instances as streams"`
	BaseURL     string `key:"base_url" default:"ws://127.0.0.1:6083/" doc:"websocket of the proxy, as users see it"`
	ProxyClient string `key:"proxyclient_address" default:"127.0.0.1" doc:"address that the consoles listen on; proxies must reach it and nobody else should"`
	PortRange   string `key:"port_range" default:"10000:20000" doc:"ports of the consoles: FIRST:LAST"`
}

// ConsoleAuth is [consoleauth] (nova/conf/consoleauth.py).
type ConsoleAuth struct {
	TokenTTL time.Duration `key:"token_ttl" default:"600" doc:"how long the URL of a console is good"`
}

// Reports is [oslo_reports] (oslo_reports/opts.py).
type Reports struct {
	LogDir string `key:"log_dir" doc:"directory of the reports that SIGUSR2 asks for; default: standard error"`
}

// Gantry is [gantry]: what Nova has no option for. An unknown key here is refused.
type Gantry struct {
	StorePath       string        `key:"store_path" doc:"images, layers and disks of instances; default: state_path/engine"`
	CgroupName      string        `key:"cgroup" default:"gantry" doc:"name of the control group of all instances"`
	Snapshotter     string        `key:"snapshotter" default:"auto" choices:"auto|overlay|btrfs|copy" doc:"what keeps the disks of instances: auto, overlay, btrfs or copy; auto is btrfs on btrfs, else overlay where the file system can be its upper one, else copies"`
	DiskLimit       string        `key:"disk_limit" default:"auto" choices:"auto|quota|loop|none" doc:"what keeps a disk within its flavor: quota (project quota of ext4 or xfs, quota group of btrfs), loop (a file system and a loop device for each instance), none, or auto: quota where the file system has it, else none with a warning"`
	ServiceVersion  int           `key:"service_version" default:"0" doc:"Nova service version to report; 0 negotiates"`
	ConsoleLogBytes int64         `key:"console_log_bytes" default:"1048576" doc:"how much of a console's output is kept (bytes)"`
	StartGrace      time.Duration `key:"start_grace" default:"0.01" doc:"a first process that fails within this time fails the build"`
	PidsPerVCPU     int64         `key:"pids_per_vcpu" default:"4096" doc:"processes that an instance may have for each vCPU"`
	ImageMaxBytes   int64         `key:"image_max_bytes" default:"68719476736" doc:"largest unpacked image (bytes)"`
	ImageMaxEntries int64         `key:"image_max_entries" default:"4000000" doc:"most files in an image"`
	ImageMaxDepth   int           `key:"image_max_depth" default:"256" doc:"most directories in one another in an image"`
	ImageMaxRatio   int64         `key:"image_max_ratio" default:"200" doc:"how many times its own size an image may expand to; the first 64 MiB are not counted"`
	ImageMaxTime    time.Duration `key:"image_max_time" default:"3600" doc:"longest time that an image may take to be read and unpacked once it is here (seconds); 0 for no limit"`
	ImageCacheBytes int64         `key:"image_cache_bytes" default:"0" doc:"what all images together may take, unpacked (bytes); images that no instance has go beyond it, those first that were used least recently; 0 is no bound"`
	Suspend         string        `key:"suspend" default:"checkpoint" choices:"checkpoint|freeze" doc:"how a server is suspended: its processes and their memory written to the disk by criu, and refused where that cannot be (checkpoint), or held still in memory until the host is rebooted (freeze)"`
	CrashDumpBytes  int64         `key:"crash_dump_bytes" default:"1073741824" doc:"what the crash dumps of all servers may take on the disk; the oldest go first, 0 keeps none"`
	SnapshotFormat  string        `key:"snapshot_format" default:"full" choices:"full|delta|tar|raw|qcow2" doc:"what a snapshot becomes in the image service: full (an OCI archive of all layers), delta (an OCI archive of what the instance has written, which boots only as long as the image of the instance is in the image service), tar (a tarball of the root file system, which boots its init), or raw or qcow2 (of an instance of a disk image with an ext4 root: that disk with the present files, which boots as a machine and needs the image of the instance in the image service; of other instances as full)"`
	InjectPassword  bool          `key:"inject_password" default:"false" doc:"the administrator password of a new instance becomes root's, where the image keeps passwords in /etc/shadow; costs some milliseconds of a boot"`
	UploadRate      int64         `key:"upload_bytes_per_second" default:"0" doc:"bound of the upload of a snapshot; 0 is none"`
	MirrorFile      string        `key:"mirror_file" doc:"a mirror.yaml: images that the service keeps in step between registries, the image service and this host"`
	MigrationPort   int           `key:"migration_port" default:"16599" doc:"port of my_ip at which other hosts fetch the disks of instances that move to them, over TLS with keys of each move; 0 for a host that neither gives nor takes instances"`
	Runtimes        string        `key:"runtimes" doc:"other OCI runtimes that flavors may ask for by gantry:runtime=NAME: a list of NAME=/PATH, divided by spaces or commas"`
	GuestView       string        `key:"guest_view" default:"full" choices:"full|files|off" doc:"what guests see of processors, memory, uptime, load and disks: full (the flavor's, in files of /proc and /sys and by the processors that they may run on), files (the same, but any processor of the host may run them, so that nproc counts all), or off (the host's); without FUSE on the host it is off, with a warning"`
	VNCCert         string        `key:"vnc_cert" doc:"certificate of this host for [vnc] auth_schemes vencrypt (PEM)"`
	VNCKey          string        `key:"vnc_key" doc:"its key"`
	VNCClientCA     string        `key:"vnc_client_ca" doc:"certificates that sign the proxies'; with it only clients with such a certificate are served"`
	MaxConsoles     int           `key:"max_consoles" default:"128" doc:"consoles that may be open to proxies at a time"`
	MaxViewers      int           `key:"max_console_viewers" default:"16" doc:"viewers that a console may have at a time"`
	MetricsListen   string        `key:"metrics_listen" doc:"HOST:PORT where Prometheus may ask at /metrics, without authentication: an address of the loopback, or of a network for management (docs/monitoring.md); default: nowhere"`
	Failpoints      string        `key:"failpoints" doc:"for tests only: failures to inject"`
}
