package matrix

func storage() []Feature {
	suites := []string{"engine/snapshot/overlay:TestSuite", "engine/snapshot/btrfs:TestSuite", "engine/snapshot/copydir:TestSuite"}
	return []Feature{
		{"one contract for disks on overlay, btrfs and as copies", append(suites, "engine/snapshot/copydir:TestSuiteShifted", "engine/snapshot/overlay:TestSuiteByPaths"), "overlay in a user namespace is not built"},
		{"the back end and the limit are chosen by what the file system can do, and said", []string{"engine/snapshot/probe:TestChoice", "engine/snapshot/probe:TestRefusals", "internal/daemon:TestSnapshotsOpen", "internal/daemon:TestSnapshotsThatCannotBe"}, ""},
		{"containers share the layers of their images", []string{"engine:TestTwoContainersShareLayersAndNothingElse", "functional:TestFunctionalInstancesShareLayers"}, "copies do not"},
		{"limit of the disk by quota groups of btrfs", []string{"engine/snapshot/btrfs:TestSuiteWithQuotas", "engine/snapshot/btrfs:TestSubvolumesOfAContainer", "engine:TestDiskLimit/btrfs,_quota_groups", "engine:TestDiskLimitLive/btrfs,_quota_groups"}, "bytes only"},
		{"limit of the disk by a loop file", []string{"engine/snapshot/quota:TestLoop", "engine/snapshot/quota:TestLoopAfterReboot", "engine/snapshot/overlay:TestSuiteInLoopFiles", "engine/snapshot/copydir:TestSuiteInLoopFiles", "engine:TestDiskLimit/overlay,_loop_files"}, "only with `disk_limit = loop`; does not shrink"},
		{"limit of the disk by project quota (ext4, xfs)", nil, "tried in a virtual machine only, not in this run: it needs a kernel with quota"},
		{"a host without limits says so and boots instances all the same", []string{"engine:TestDiskLimit/overlay,_no_limits", "driver/local:TestTheFlavorBoundsTheDisk", "internal/daemon:TestSnapshotsOpen/no_quota"}, ""},
		{"layers are unpacked in a child without rights", []string{"engine/layer/jail:TestWalls", "engine/layer/jail:TestSameAsWithoutJail", "engine/layer/jail:TestErrors", "engine:TestUnpackElsewhere"}, ""},
		{"`gantry doctor`: kernel, modules, ids, filters, clock, disks, control groups; a remedy for each line", []string{"internal/doctor:TestWhatIsMissing", "internal/doctor:TestClock", "internal/daemon:TestDoctorOfTheHost"}, ""},
		{"`gantry doctor --config-file`: broker, Keystone, Placement, Neutron, Glance, clock, agent and record of the host, no secret shown", []string{"internal/daemon:TestDoctorOfAHealthyCloud", "internal/daemon:TestDoctorOfASickCloud", "internal/daemon:TestDoctorOfASilentCloud", "driver/messaging/amqp:TestProbe", "functional:TestFunctionalDoctor"}, ""},
		{"`gantry doctor --storage` finds what a crash has left, and mends it", []string{"engine:TestTheDoctor", "engine:TestDamagedPack", "internal/daemon:TestDoctorOfTheStorage"}, ""},
		{"garbage collection by age and size, with leases", []string{"engine:TestCollectByAgeAndSize", "engine:TestLeases", "engine:TestACollectionThatWasCutOff", "engine:TestCollectingDuringChurn"}, ""},
		{"commit, changes, export of containers and images", []string{"engine:TestCommitCarriesChangesIntoANewImage", "engine:TestChanges", "engine:TestExport", "engine:TestExportImage"}, ""},
		{"layers go back to a registry as it stores them", []string{"engine:TestStoredLayers", "mirror:TestLayersThatAreThere", "cmd/gantry:TestMirrorOfImages"}, "a registry that has not got them is sent them compressed anew"},
		{"records of every earlier schema are upgraded; a torn or full disk is told", []string{"engine/store:TestBolt", "engine/store:TestMemory", "engine/store:TestOldSchemasAreBroughtUpToDate", "engine/store:TestUnknownSchemasAreRefused", "engine/store:TestTornDatabases", "engine/store:TestAFullDiskLosesNothing", "engine/store:TestReadingWhileNobodyOwnsIt"}, ""},
	}
}

func engineVerbs() []Feature {
	return []Feature{
		{"OCI runtime command: `create`, `start`, `state`, `kill`, `delete`, `run`, `exec`, `update`, hooks", []string{
			"engine/runtime:TestLife", "engine/runtime:TestRun", "engine/runtime:TestExec", "engine/runtime:TestHooks", "engine/runtime:TestUpdate",
			"engine/runtime:TestUnknownAndBadIDs", "engine/runtime:TestFailedCreate", "engine/oci:TestConvert", "engine/oci:TestConvertRefuses",
		}, "the OCI validation suite is `make validate`"},
		{"`gantry ps`, `run`, `logs`, `exec`, `attach` and others over the engine's socket", []string{"engine/api:TestLife", "engine/api:TestOwned", "engine/api:TestErrorsKeepTheirClass", "engine/api:TestRawRequests", "cmd/gantry:TestOperator", "cmd/gantry:TestOperatorErrors"}, ""},
		{"further commands in a container, with and without a terminal", []string{"engine:TestExec", "engine:TestExecTerminal", "engine:TestExecEnds", "engine:TestExecBadRequests"}, ""},
		{"consoles: bounded, by lines and since, followed, attached to", []string{"engine:TestLogs", "engine/conlog:TestFollow", "engine/conlog:TestSince", "engine/api:TestAttach"}, ""},
		{"use, processes and events of containers", []string{"engine/api:TestStreams", "engine:TestTop", "engine:TestEventsOfALife", "engine:TestBus"}, ""},
		{"files in and out of containers, also of hostile ones", []string{"engine:TestCopy", "engine/transfer:TestInOut", "engine/transfer:TestInRefuses", "engine/transfer:TestLinksLeadNowhere", "engine/transfer:TestRace"}, ""},
		{"limits of a running container change", []string{"engine:TestUpdate"}, ""},
		{"another OCI runtime by `gantry:runtime` of the flavor", []string{"engine/foreign:TestSuite", "engine/foreign:TestIsolation", "engine/foreign:TestEngine", "driver/local:TestUnbootableRequests/unknown_runtime"}, "with runc 1.1.5 and crun 1.8.1 (without the runner's whole suite) and cgroup v1; runsc not tried"},
		{"checkpoint and restore: probed, refused with the reason, failures leave everything as it was (a stand-in for criu)", []string{"engine:TestCheckpointIsProbed", "engine:TestRestore", "engine:TestRestoreFails", "engine/checkpoint:TestProbe", "engine/checkpoint:TestDump", "engine/checkpoint:TestDumpFails", "engine/checkpoint:TestRestore", "engine/checkpoint:TestRestoreFails"}, ""},
		{"checkpoint and restore by criu 4.2 or newer: a restored container goes on, is confined as it was, outlives service, keeper and guard", []string{"engine:TestCriu", "engine:TestCriuRefuses", "engine:TestCriuFails", "functional/crash:TestRestoredOutlivesKills"}, "criu is in no stable Debian, so these tests are no part of `make test`: `make criu` runs them; passed with criu 4.2.1 on Linux 6.18 and cgroup v1, and on Linux 6.1 and cgroup v2. Not tried: arm64, a restore after a reboot of the host"},
	}
}
