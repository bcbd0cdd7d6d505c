package matrix

// Features returns the table, in the order of the document.
func Features() []Group {
	return []Group{
		{"Joining an OpenStack", joining()},
		{"Images", images()},
		{"What an instance gets", instance()},
		{"Isolation", isolation()},
		{"What a tenant can do", verbs()},
		{"The engine by itself", engineVerbs()},
		{"Storage", storage()},
		{"Crashes and restarts", restarts()},
		{"Failures", failures()},
		{"The embedded cloud", embedded()},
		{"The wire", wire()},
		{"Platforms", platforms()},
	}
}

func joining() []Feature {
	return []Feature{
		{"a host's `nova.conf` is read as it is; several files, environment and flags override in order", []string{"config:TestLoadReadsANovaConfAsItIs"}, ""},
		{"a bad setting is refused with file, section, key and what was expected", []string{"config:TestLoadRefusesBadSettingsByName", "config:TestLoadRefusesUnknownOverride"}, ""},
		{"`compute service list` shows the host up", []string{"functional:TestFunctionalHostIsUp"}, ""},
		{"it stays up for hours", nil, "needs a run of hours"},
		{"`hypervisor list / show / stats`", []string{"functional:TestFunctionalHostIsUp"}, ""},
		{"resource provider with VCPU, MEMORY_MB, DISK_GB, allocation ratios, traits", []string{"functional:TestFunctionalPlacementKnowsTheHost"}, ""},
		{"traits of the processor, of what boots here, and our own", []string{"functional:TestFunctionalPlacementKnowsTheHost", "driver/local:TestCPUTraits"}, ""},
		{"disabling and enabling the service reaches Placement", []string{"functional:TestFunctionalPlacementKnowsTheHost"}, ""},
		{"`nova-manage cell_v2 discover_hosts`", []string{"functional:TestFunctionalDiscoverHostsMapsTheHost"}, ""},
		{"UUID of the node survives a lost record and is refused when it contradicts the control plane", []string{"driver/compute/tracker:TestIdentitySurvivesALostRecord", "driver/compute/tracker:TestIdentify"}, ""},
	}
}

func images() []Feature {
	return []Feature{
		{"docker archive (skopeo)", []string{`functional:TestFunctionalEveryFormatBoots/app-docker\.tar`}, ""},
		{"OCI archive (umoci, skopeo)", []string{`functional:TestFunctionalEveryFormatBoots/app-oci\.tar`}, ""},
		{"root file system tarball, plain", []string{`functional:TestFunctionalEveryFormatBoots/busybox\.tar`}, ""},
		{"root file system tarball, gzip", []string{`functional:TestFunctionalEveryFormatBoots/busybox\.tar\.gz`}, ""},
		{"root file system tarball, xz", []string{`functional:TestFunctionalEveryFormatBoots/busybox\.tar\.xz`}, ""},
		{"root file system tarball, zstd", []string{`functional:TestFunctionalEveryFormatBoots/busybox\.tar\.zst`}, ""},
		{"tarballs are unpacked while they come", []string{"engine:TestImportUnpacksWhileItComes"}, ""},
		{"snapshots have the layers of their image, and a host that knows it unpacks the top only", []string{"engine:TestCommitKeepsTheLayersOfTheImage", "engine:TestCommitOfABareRootFileSystem"}, ""},
		{"a snapshot under write load is what a power cut would have left", []string{"engine:TestCommitUnderWriteLoad", "engine/layer:TestStage.*"}, "`make debian`, outside CI, restores PostgreSQL under the load of four clients: no acknowledged row is missing"},
		{"delta snapshots, one over the other", []string{"engine:TestCommitDelta", "driver/local:TestDeltaSnapshots"}, ""},
		{"snapshots as tarballs", []string{"driver/local:TestTarSnapshot"}, ""},
		{"snapshots as disk images, qcow2 and raw: the disk of the image with the instance's files on its ext4 root", []string{"engine:TestCommitDisk.*", "engine/disk/filesystem/ext:TestWrite.*", "engine/disk/qcow2:TestWriter.*", "driver/local:TestDiskSnapshots", "functional/cloud:TestDiskSnapshotsBoot"}, "`make debian` boots one of Debian by its own GRUB under QEMU, outside CI"},
		{"image cache: `cache_images`, removal by age and size", []string{"driver/local:TestConformance", "engine:TestCollectByAgeAndSize"}, "not with a real Nova"},
		{"images are verified after the host went down", []string{"engine:TestImagesAreVerifiedAfterACrashOfTheHost"}, ""},
		{"mirrors between registries, archives, directories, Glance and the host", []string{"mirror:Test.*", "cmd/gantry:TestMirrorOfImages", "internal/daemon:TestMirrorImages"}, "Glance is a stand-in in these"},
		{"`gantry commit`, `diff`, `export`, `import`, `history`", []string{"cmd/gantry:TestImagesOfContainers"}, ""},
		{"a commit is one durable stream, unpacked by the first container of the image; killed at each step it is whole or not there", []string{"engine:TestCommittedLayerIsUnpackedWhenItIsWanted", "engine:TestDamagedPack", "engine:TestUnpackedOnceForAll", "engine:TestKilledAtEachPoint/engine.commit.packed", "engine:TestKilledAtEachPoint/engine.layer.*"}, ""},
		{"root file system made by debootstrap", []string{"functional:TestFunctionalDebianBoots"}, "with `os_command_line`; no init in it"},
		{"command, environment, user, groups and directory of the image", []string{"functional:TestFunctionalTenantsFirstHour"}, ""},
		{"systemd as first process", []string{"engine:TestSystem", "engine:TestSystemIsChosen", "engine:TestSecuritySystem", "functional/cloud:TestDebianGuest"}, "Debian 12, to `running`"},
		{"containers inside an instance, for flavors with `gantry:nesting`", []string{"engine:TestNesting", "engine:TestNestingOfAnInstance", "engine:TestSecurityNesting", "driver/local:TestNesting", "functional/cloud:TestNesting"}, "`make debian`, outside CI, runs docker and podman of Debian 12"},
		{"`reboot` and `poweroff` inside the guest", []string{"driver/local:TestAGuestsReboot", "driver/local:TestAGuestsRebootIsFinished", "driver/local:TestAGuestThatOnlyReboots", "functional/cloud:TestDebianGuest"}, ""},
		{"processors, memory, uptime, load and disks in `/proc` and `/sys` follow the flavor, and a live resize", []string{"engine/view:TestSource", "engine/view:TestRender", "engine/view/server:TestGuest", "engine/view/server:TestGuestsAreApart", "engine:TestProcessors"}, "not `sysinfo(2)`"},
		{"what shows them is killed and replaced under readers", []string{"engine/view/server:TestServerIsReplaced", "engine/view/fuse:TestTakeOver", "engine/view/fuse:TestRequestThatKills"}, ""},
		{"unmodified cloud-init, by config drive and by metadata service", []string{"functional/cloud:TestDebianGuest"}, "Debian 12, embedded cloud"},
		{"config drive", []string{"driver/metadata:TestDrive", "driver/local:TestConfigDrive", "driver/local:TestConfigDriveThatIsNone"}, "a tree, no device"},
		{"environment from server metadata (`env:`)", []string{"driver/local:TestEnvironment"}, ""},
		{"disk image, raw: MBR, GPT or no table; ext4", []string{"engine:TestDiskImages", `functional:TestFunctionalEveryFormatBoots/busybox\.ext4`, "functional/cloud:TestDiskImagesBoot/raw"}, ""},
		{"disk image, qcow2: versions 2 and 3, zlib, zstd, extended L2", []string{"engine:TestDiskImages", `functional:TestFunctionalEveryFormatBoots/busybox\.qcow2`, "functional/cloud:TestDiskImagesBoot/qcow2"}, ""},
		{"disk image with ext2, ext3, XFS or btrfs", []string{"engine:TestDiskImages", "engine/disk:TestOpen"}, ""},
		{"archive of docker before 1.10, OCI layout in a directory", []string{"engine/image:TestDockerV1", "engine/image:TestNestedLayout"}, ""},
		{"two instances of one image share its layers on disk", []string{"functional:TestFunctionalInstancesShareLayers"}, ""},
		{"one download for simultaneous boots", []string{"glance/cache:TestOneWorkForMany"}, ""},
	}
}

func instance() []Feature {
	return []Feature{
		{"user, pid, mount, network, uts, ipc and cgroup namespaces of its own", []string{"functional:TestFunctionalIsolatedAndLimited"}, ""},
		{"memory, CPU and process limits of the flavor", []string{"functional:TestFunctionalIsolatedAndLimited", "engine/cgroup:TestLinuxSuite"}, "on the layout of control groups of the machine that ran the tests"},
		{"quotas of the flavor: cpu shares, period and quota, rates of the disk, processes", []string{"driver/local:TestLimitsFor", "driver/local:TestLimitsOfTheDisk", "driver/local:TestExtraSpecsLimitTheGuest"}, ""},
		{"flavors that ask for what no instance gets are refused", []string{"driver/local:TestFlavorsThatAreRefused", "driver/local:TestFits"}, ""},
		{"a process beyond the memory limit is killed, and only there", []string{"engine/cgroup:TestOOMKillIsCounted"}, ""},
		{"devices outside the list are refused", []string{"engine/cgroup:TestDevices"}, ""},
		{"system call filter", []string{"engine/seccomp:TestUnderFilter", "engine/process:TestLocalWithDefaultFilter"}, ""},
		{"an image whose signature the operator wants verified is refused", []string{"driver/local:TestUnverifiedImages"}, "signatures are verified nowhere"},
		{"processors of its own (`hw:cpu_policy=dedicated`), the others float over shared ones", []string{"functional:TestDedicatedProcessors", "driver/local:TestProcessorsOfItsOwn", "driver/compute/tracker:TestProcessorsAreGivenOnce", "driver/compute/tracker:TestProcessorsOfAMove"}, ""},
		{"limit on the size of the disk", []string{"driver/local:TestTheFlavorBoundsTheDisk", "driver/local:TestDiskFor", "engine:TestDiskLimit"}, "where the store's file system has quotas, or with `disk_limit = loop`; see Storage"},
		{"Neutron's address, MTU, routes and DNS before the first process", []string{"functional:TestFunctionalNetworkOfAnInstance"}, "one IPv4 subnet"},
		{"several ports, addresses of several subnets, IPv6", []string{"driver/neutron:TestAllocateSeveral", "netbridge:TestLinuxSuite.*"}, "not with a real Neutron"},
		{"ping and TCP through the linuxbridge agent", []string{"functional:TestFunctionalNetworkOfAnInstance"}, ""},
		{"metadata service", []string{"functional:TestFunctionalNetworkOfAnInstance"}, ""},
		{"instances reach each other as far as port security, allowed address pairs and security groups say", []string{"functional:TestFunctionalNeighbours"}, "also with Neutron's openvswitch agent by `make functional-ovs`, and with OVN by `make functional-ovn`"},
		{"a port that was bound to another host is bound to this one again", []string{"functional:TestFunctionalPortBoundElsewhere", "driver/compute/periodic:TestHealInfoCacheTakesTurns"}, ""},
		{"a host name with a line break, and one MAC address twice, are refused or made safe", []string{"internal/devcloud/compute:TestNoNameHasALineBreak", "driver/local:TestHostname", "internal/devcloud/network:TestAskedForAddresses", "netbridge:TestValidate"}, ""},
		{"public key of the key pair in root's authorized_keys", []string{"functional:TestFunctionalKeyAndFilesReachTheGuest"}, ""},
		{"ports of Open vSwitch, plain and hybrid, with the external ids that Neutron's agent and OVN look for", []string{"netbridge/ovs:TestOpenVSwitch", "netbridge/ovs:TestSet", "driver/local:TestNetworkPlan"}, "through the real switch with its datapath in user space; both with Neutron's agent by `make functional-ovs`, plain ones with OVN by `make functional-ovn`"},
		{"limits of a flavor for what interfaces carry (`quota:vif_*`)", []string{"netbridge:TestLimitsHold", "netbridge:TestLinuxSuite/Limits", "driver/local:TestTraffic.*", "driver/local:TestExtraSpecsLimitTheGuest"}, "refused for plain ports of Open vSwitch"},
		{"a database of Open vSwitch that does not answer is the fault of one instance", []string{"netbridge/ovs:TestSilentDatabase", "netbridge/ovs:TestRemovalIsMadeUpFor"}, ""},
		{"SR-IOV, macvtap and vhost-user ports", nil, "refused"},
	}
}

// isolation are the recipes of docs/security.md.
func isolation() []Feature {
	sec := func(names ...string) []string {
		for i, n := range names {
			names[i] = "engine:TestSecurity" + n
		}
		return names
	}
	suite := func(names ...string) []string {
		for i, n := range names {
			names[i] = "engine/process:TestLocal" + n
		}
		return names
	}
	return []Feature{
		{"the host's binary cannot be overwritten from inside", append(sec("OwnBinary"), suite("Isolation/OwnBinaryIsOutOfReach", "Isolation/ExecOwnBinary")...), ""},
		{"no descriptor of the host leaks, no working directory lies outside", append(sec("WorkingDirectories"), suite("Isolation/HostileWorkingDirectory", "Isolation/ExecHostileCwd", "Isolation/OnlyStandardFiles")...), ""},
		{"what enters a container cannot be traced by it", append(sec("Tracer", "TracedSession"), suite("Isolation/ExecUntraceable")...), ""},
		{"links at mount points, in the image and in a race", append(sec("MountPointsOfTheImage", "SwappedMountPoints"), suite("Races/.*", "Isolation/HostileRoot")...), "bounded number of rounds"},
		{"control groups are its own part and read-only", sec("ControlGroups"), ""},
		{"no abstract sockets", sec("Sockets"), ""},
		{"capabilities are exact; those of files are bounded", append(sec("Capabilities"), suite("Isolation/Capabilities")...), ""},
		{"users that are no plain ones are refused", append(sec("Users"), "engine/process:TestLookupUser", "engine/process:TestLookupUserHostileFiles"), ""},
		{"nothing of an image is run or loaded by the host", sec("NothingOfTheImageRuns"), ""},
		{"copies stay inside while the container swaps directories", append(sec("CopiesDuringASwap"), "engine/transfer:TestRace"), "bounded number of rounds"},
		{"dangerous system calls end with an error, at a start and at an exec", sec("Calls"), ""},
		{"devices of the host cannot be made or opened", sec("Devices", "Calls"), ""},
		{"line breaks and NUL in what callers give", sec("Injection"), ""},
		{"a pid that belongs to another by now is left alone", []string{"engine:TestAnotherProcessWithThePid", "engine/runtime:TestReusedPid"}, ""},
		{"users of the host reach nothing of the store", sec("HostUsers"), ""},
		{"console logs are bounded and follow no links", append(sec("Console"), "engine/conlog:TestSymlinksAreRefused"), ""},
		{"the owner of given files stays", append(sec("Stdio"), suite("Isolation/Stdio")...), ""},
		{"hostile layers are refused or land inside, and leave nothing", append(sec("HostileImages", "UnpackingIsPrivate"), "engine/layer:TestApplyRefuses", "engine/layer:TestApplyContains"), ""},
		{"altered archives are refused by their digests", append(sec("DamagedLayers"), "engine/image:TestDamagedArchives"), ""},
		{"layers are unpacked by a process without rights", []string{"engine/layer/jail:TestWalls"}, ""},
		{"altered metadata of a restored instance", nil, ""},
		{"disk images that name files of the host", []string{"engine:TestHostileDiskImages", "engine/disk:TestRefused", "functional/cloud:TestDiskImagesThatDoNotBoot"}, ""},
		{"disk images are read by a process without rights", []string{"engine/disk/jail:TestWalls"}, ""},
	}
}

func verbs() []Feature {
	power := []string{"functional:TestFunctionalPowerStates"}
	hour := []string{"functional:TestFunctionalTenantsFirstHour"}
	return []Feature{
		{"`server create` as a non-admin with the stock client", hour, ""},
		{"`console log show`", hour, ""},
		{"`console url show --serial`: through nova-serialproxy, several viewers, history, size", []string{"functional:TestFunctionalSerialConsole", "console:TestSerial"}, ""},
		{"`console url show --novnc`: a terminal by VNC through nova-novncproxy", []string{"functional:TestFunctionalVNCConsole", "console:TestVNC"}, ""},
		{"VNC encodings, sizes, VeNCrypt with X.509, hostile clients and hostile output", []string{"console/rfb:Test.*", "console/terminal:Test.*"}, "TLS not with a real nova-novncproxy"},
		{"consoles of the embedded cloud: tokens, origins, pages", []string{"internal/devcloud/consoles:TestProxy"}, ""},
		{"`server stop`, `start`", power, ""},
		{"`server reboot --soft`", power, ""},
		{"`server reboot --hard`", power, ""},
		{"`server pause`, `unpause`", power, ""},
		{"`server lock`, `unlock`", hour, ""},
		{"`server delete` leaves nothing on the host", hour, "every functional test checks this for its instances"},
		{"`server image create`: content, size and hashes in Glance; boots again with the change", []string{"functional:TestFunctionalSnapshotCarriesTheChange"}, ""},
		{"`server set --password`: root's password of a running guest, no program of the guest needed", []string{"driver/local:TestSetPassword", "driver/local:TestInjectPassword", "driver/compute:TestSetAdminPassword", "functional:TestFunctionalDebianBoots"}, ""},
		{"`nova get-password`: a password that the host has set, encrypted for the key pair (RSA)", []string{"driver/metadata:TestEncrypt", "driver/compute:TestAdminPasswordIsShown", "internal/devcloud/compute:TestServerPassword", "functional:TestFunctionalDebianBoots"}, ""},
		{"`server show --diagnostics`", []string{"functional:TestFunctionalDiagnostics"}, ""},
		{"each action has its event, without an error", power, ""},
		{"notifications as from nova-compute", []string{"driver/compute:TestNotifications", "driver/compute:TestNotificationOfAFailedBuild", "functional:TestFunctionalNotifications"}, ""},
		{"versioned notifications, field by field as Nova's code makes them", []string{"driver/notification:TestAsNova", "driver/compute:TestVersionedNotifications", "driver/compute:TestVersionedFailure", "functional:TestFunctionalNotifications"}, "the payload versions are Zed's at every release"},
		{"soft delete, restore, and the reclaim after `reclaim_instance_interval`", []string{"driver/compute:TestVerbs", "driver/compute/periodic:TestReclaimQueuedDeletes", "functional:TestOtherVerbs"}, ""},
		{"`server rebuild`: another guest, the same name and addresses; a bad image loses nothing", []string{"driver/compute:TestRebuild", "driver/compute:TestRebuildRefused", "driver/compute:TestRebuildFails", "functional/cloud:TestRebuild", "functional:TestFunctionalRebuild"}, ""},
		{"`server shelve`, offload, `unshelve`", []string{"driver/compute:TestShelveAndUnshelve", "driver/compute:TestShelveFails", "driver/compute:TestUnshelveFails", "driver/compute/periodic:TestOffloadShelved", "functional/cloud:TestShelveAndUnshelve", "functional:TestFunctionalShelve"}, "on one host"},
		{"`server resize` on its host, confirm, revert; the guest runs on where the flavor allows", []string{"driver/compute:TestResize.*", "functional:TestResizeHere", "functional/cloud:TestResize.*"}, ""},
		{"`server migrate` to another host with disk and addresses, confirm, revert", []string{"driver/compute:TestMove.*", "driver/local:TestMove.*", "driver/local:TestConformance/move_to_another_host", "driver/local/courier:Test.*", "functional:TestMove"}, "both hosts on one machine"},
		{"kill -9 of either host in the middle of a move: the server runs where it was", []string{"driver/compute:TestAbandonMoveOfTwoHosts", "driver/compute/recovery:TestMovesFromHere"}, "not with a real Nova"},
		{"a resize that nobody confirms is confirmed after `resize_confirm_window`", []string{"driver/compute/periodic:TestConfirmResizes", "driver/compute:TestConfirmMove"}, "not with a real Nova"},
		{"beside a stock nova-compute: images and flavors go where they belong; no move to a hypervisor of another kind", []string{"driver/compute:TestMoveFails", "functional:TestMixedCloud"}, ""},
		{"`server evacuate` to this host; the dead host removes its guest when it is back", []string{"driver/compute:TestEvacuate", "driver/compute:TestEvacuateFails", "functional:TestEvacuate"}, "boots from the image again: disks are not shared"},
		{"kill -9 in the middle of a resize: undone at the next start", []string{"driver/compute:TestAbandonMove", "functional:TestResizeCutOff"}, ""},
		{"kill -9 in the middle of a confirmation: completed at the next start", []string{"driver/compute:TestConfirmMoveAgain", "driver/compute/recovery:TestMovesFromHere"}, "not with a real Nova"},
		{"`server rescue`, `unrescue`: another system, the server's disk at /mnt/rescue; ends after `rescue_timeout`", []string{"driver/local:TestRescue", "driver/local:TestConformance/rescue", "driver/compute:TestRescue", "driver/compute:TestRescueEnds", "driver/compute/periodic:TestEndRescues", "functional:TestRescue"}, ""},
		{"`server suspend`, `resume`", []string{"driver/local:TestConformance/suspend_and_resume", "driver/local:TestSuspend.*", "driver/compute:TestSuspend", "driver/compute/recovery:TestDecide", "functional:TestOtherVerbs"}, "with a real Nova by the freezer; by criu where it is installed"},
		{"`server dump create`: an ELF core of the first process on the host, bounded by `crash_dump_bytes`", []string{"engine/coredump:TestWrite", "engine/coredump:TestLimit", "driver/local:TestCrashDumps", "driver/compute:TestTriggerCrashDump", "functional:TestOtherVerbs"}, ""},
		{"quiesce and unquiesce; nothing stays frozen", []string{"driver/local:TestQuiesceHoldsStill", "driver/local:TestConformance/quiesce", "driver/compute:TestQuiesce"}, "not with a real Nova: it asks for it with volumes only"},
		{"a rescue that fails, or is cut off by a kill, leaves the server as it was", []string{"driver/local:TestRescueEachStepCanFail", "driver/local:TestRescueIsRecovered", "driver/compute:TestRescueRefused", "driver/compute/recovery:TestAct"}, ""},
		{"`server backup create` with rotation", []string{"driver/compute:TestBackup", "functional/cloud:TestBackups", "functional:TestFunctionalBackup"}, ""},
		{"`server add network`, `add port`, `remove port`: interfaces of a running guest come and go, with traffic; addresses change", []string{"functional:TestFunctionalInterfacesComeAndGo", "functional/cloud:TestInterfaces", "driver/local:TestHotPlugCarriesTraffic", "driver/local:TestConformance/interfaces_come_and_go", "driver/compute:TestAttachAndDetachInterface"}, ""},
		{"an attach that fails leaves neither port nor interface; a service that dies in it leaves what Neutron says", []string{"driver/compute:TestAttachInterfaceFails", "driver/compute:TestAttachInterfaceFailsAtEachStep", "driver/neutron:TestAttachFails", "driver/local:TestChangeCanFail", "driver/local:TestBadPortsHurtNobodyElse"}, "the kill not with a real Nova"},
		{"what is not done is refused without harm to the instance", []string{"driver/compute:TestRefusals", "driver/compute:TestMethodsAreComplete"}, "live migration, volumes, SPICE consoles"},
	}
}

func restarts() []Feature {
	return []Feature{
		{"kill -9 of the service: instances run on and are adopted", []string{"functional:TestFunctionalInstancesOutliveTheService"}, ""},
		{"the console log is whole afterwards", []string{"functional:TestFunctionalInstancesOutliveTheService"}, ""},
		{"kill -9 in each step of a build", []string{"functional:TestFunctionalCrashInTheMiddleOfABuild"}, ""},
		{"kill -9 of either host's service in a move: the server is where it was", []string{"functional:TestMoveCutOff"}, ""},
		{"kill -9 while a port is attached or detached: guest, Nova and Neutron agree", []string{"functional:TestFunctionalCrashInTheMiddleOfAnInterface"}, ""},
		{"each failing step of a container's start leaves nothing", []string{"engine:TestAFailedStepLeavesNothingAndTheNextTryWorks"}, ""},
		{"decision table of the start of the service", []string{"driver/compute/recovery:TestDecide", "driver/compute/recovery:TestDecideInvariants"}, ""},
		{"restart of RabbitMQ", []string{"functional:TestFunctionalControlPlaneRestarts/rabbitmq"}, ""},
		{"restart of nova-conductor", []string{"functional:TestFunctionalControlPlaneRestarts/nova-conductor"}, ""},
		{"restart of neutron-server", []string{"functional:TestFunctionalControlPlaneRestarts/neutron-server"}, ""},
		{"power states agree after a guest has ended by itself", []string{"driver/compute:TestGuestEndsByItself", "driver/compute:TestSyncPowerState"}, "not with a real Nova"},
		{"reboot of the host", nil, ""},
		{"kill -9 of the service at each step of create, start, exec, commit and delete: whole or undone, nothing left", []string{"functional/crash:TestKilledAtEachStep/.*/service"}, ""},
		{"kill -9 of the keeper there: done, or refused with nothing begun; what runs hears nothing of it", []string{"functional/crash:TestKilledAtEachStep/.*/keeper"}, ""},
		{"kill -9 of the keeper's guard there", []string{"functional/crash:TestKilledAtEachStep/.*/guard"}, ""},
		{"kill -9 of keeper and guard there, one after the other", []string{"functional/crash:TestKilledAtEachStep/.*/keeper_then_guard", "functional/crash:TestKilledAtEachStep/.*/guard_then_keeper"}, ""},
		{"kill -9 of service and keeper there, at once", []string{"functional/crash:TestKilledAtEachStep/.*/service_and_keeper"}, ""},
		{"a kill a second while containers come and go: none dies, no byte of a console is lost or twice, exits are known, no process, mount, namespace, group, descriptor or file is left", []string{"functional/crash:TestKillsUnderChurn"}, "20 containers for 20 seconds; `make crash` for 100 and 10 minutes"},
		{"a keeper that is away, or has forgotten, ends no container", []string{"engine:TestARunnerThatCannotSayEndsNothing"}, ""},
		{"loss of keeper and guard within 50 ms", nil, "what does not ignore SIGHUP ends; the rest runs on without a console and its exit is not known"},
	}
}

func failures() []Feature {
	bad := func(name string) []string {
		return []string{"functional:TestFunctionalBadImagesFailWithTheCause/" + name}
	}
	return []Feature{
		{"unknown image format", bad("noise"), ""},
		{"unsupported image format (vmdk and others), or another than declared", append(bad("disk_image"), "engine/image:TestDisksThatAreRefused"), ""},
		{"damaged image: hash differs", []string{"functional:TestFunctionalDamagedImageIsRefused"}, ""},
		{"download cut off half-way", []string{"glance:TestDownload", "engine:TestDamagedImportLeavesNothing"}, "not with a real Glance"},
		{"archive with hostile entries", append(bad("climbing_entry"), append(bad("climbing_link"), "engine/layer:TestApplyContains", "engine/image:TestHostileDocuments", "engine/image:TestBombs")...), ""},
		{"image without a command and without an init", bad("nothing_to_run"), ""},
		{"command that does not exist", bad("missing_command"), ""},
		{"command that exits at once", bad("command_that_ends"), ""},
		{"malformed `os_command_line`", bad("open_quote"), ""},
		{"port that cannot be bound", []string{"functional:TestFunctionalPortThatCannotBeBound"}, ""},
		{"vif-plugged event that never comes, fatal and not fatal", []string{"functional:TestFunctionalPluggingThatNeverEnds"}, ""},
		{"flavor larger than the host", []string{"driver/compute/tracker:TestClaim", "driver/compute/tracker:TestFit", "functional:TestFunctionalFlavorLargerThanTheHost"}, ""},
		{"disk full during unpack", []string{"functional:TestFunctionalFullDisk"}, ""},
		{"delete while building", []string{"functional:TestFunctionalDeleteWhileBuilding"}, ""},
		{"two boots of the same UUID (redelivered message)", []string{"driver/compute:TestBuildTwice", "functional:TestFunctionalRedeliveredBuildIsDoneOnce"}, ""},
		{"messages for instances of another host", []string{"driver/compute:TestBuildOfAnotherHost", "driver/compute:TestForeignInstance", "functional:TestFunctionalMessagesForOthersAndNoise"}, ""},
		{"verdict of a failed build: error, reschedule or silence", []string{"driver/compute:TestBuildFailures", "driver/compute:TestJudge"}, ""},
	}
}

func wire() []Feature {
	return []Feature{
		{"captured traffic of a stock nova-compute decodes and re-encodes without loss", []string{"driver/objects:TestCapturesRoundTrip", "driver/messaging:TestStockRequests", "driver/messaging:TestStockReplies"}, ""},
		{"our calls for each verb beside the stock ones", []string{"driver/compute:TestSequence"}, ""},
		{"the objects of the Zed manifest, by fingerprint", []string{"driver/objects:TestFingerprints"}, ""},
		{"transport over a real RabbitMQ: lost, frozen and refused connections", []string{"driver/messaging/amqp:TestTransport", "driver/messaging/amqp:TestBrokerDown", "driver/messaging/amqp:TestHalfOpen"}, ""},
		{"adopts exchanges and queues that exist with other properties", []string{"driver/messaging/amqp:TestAdoptsWhatIsThere"}, ""},
		{"object calls to a real nova-conductor", []string{"driver/conductor:TestRealReads", "driver/conductor:TestRealServiceAndNode", "driver/conductor:TestRealInstance"}, ""},
		{"ports in a real Neutron", []string{"driver/neutron:TestRealNeutron"}, ""},
		{"providers in a real Placement", []string{"driver/placement:TestRealPlacement"}, ""},
		{"verification of the broker's certificate", []string{"driver/messaging/amqp:TestTLSVerification"}, ""},
		{"TLS to a real RabbitMQ", nil, "the test broker has no TLS"},
		{"quorum queues", nil, "options are read and sent; the test broker uses classic queues"},
		{"OpenStack newer than Zed: version claimed, objects read, nodes linked", []string{"driver/compute/service:TestChooseVersion", "driver/objects:TestZedIsTheFloor", "driver/objects:TestGainedFieldsSurvive", "driver/compute:TestNewerMessagesAreServed", "driver/conductor:TestNodeAndItsRowGoTogether"}, "the whole against Nova of 2026.1 and 2026.2 is `make functional-releases`, not in this run"},
	}
}

func platforms() []Feature {
	return []Feature{
		{"amd64, Debian 12, cgroup v1", []string{"functional:TestFunctionalTenantsFirstHour", "engine/cgroup:TestLinuxSuite"}, "the layout of the machine that ran the tests; see its log line `engine open`"},
		{"cgroup v2 only", nil, "tried in a virtual machine only, not in this run"},
		{"arm64", nil, "compiles and vets; never run"},
		{"bare machine without systemd", nil, ""},
	}
}
