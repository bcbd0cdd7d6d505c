package conductor

// classMethods and objectMethods are everything that is served: what compute
// services call (nova-wire: the remotable methods).
func classMethods() map[string]classMethod {
	return map[string]classMethod{
		"Instance.get_by_uuid":                   (*Conductor).getInstance,
		"InstanceList.get_by_host":               (*Conductor).instancesByHost,
		"InstanceList.get_by_host_and_node":      (*Conductor).instancesByNode,
		"InstanceList.get_uuids_by_host":         (*Conductor).uuidsByHost,
		"InstanceList.get_by_filters":            (*Conductor).instancesByFilters,
		"InstanceList.get_hung_in_rebooting":     (*Conductor).hungInRebooting,
		"InstanceInfoCache.get_by_instance_uuid": (*Conductor).getInfoCache,

		"InstanceNUMATopology.get_by_instance_uuid":   extra("numa_topology"),
		"InstancePCIRequests.get_by_instance_uuid":    extra("pci_requests"),
		"MigrationContext.get_by_instance_uuid":       extra("migration_context"),
		"TrustedCerts.get_by_instance_uuid":           extra("trusted_certs"),
		"VirtCPUModel.get_by_instance_uuid":           extra("vcpu_model"),
		"ResourceList.get_by_instance_uuid":           extra("resources"),
		"InstanceDeviceMetadata.get_by_instance_uuid": extra("device_metadata"),
		"TagList.get_by_resource_id":                  extra("tags"),
		"PciDeviceList.get_by_instance_uuid":          nothing("PciDeviceList"),
		"PciDeviceList.get_by_compute_node":           nothing("PciDeviceList"),

		"InstanceAction.action_start":                   (*Conductor).actionStart,
		"InstanceAction.action_finish":                  (*Conductor).actionFinish,
		"InstanceAction.get_by_request_id":              (*Conductor).getAction,
		"InstanceActionEvent.event_start":               (*Conductor).eventStart,
		"InstanceActionEvent.event_finish":              (*Conductor).eventFinish,
		"InstanceActionEvent.event_finish_with_failure": (*Conductor).eventFinish,

		"Service.get_minimum_version":          (*Conductor).minimumVersion,
		"Service.get_by_host_and_binary":       (*Conductor).getService,
		"Service.get_by_compute_host":          (*Conductor).getComputeService,
		"ComputeNode.get_by_host_and_nodename": (*Conductor).getNode,
		"ComputeNode.get_by_uuid":              (*Conductor).getNodeByUUID,
		"ComputeNodeList.get_all_by_host":      (*Conductor).nodesByHost,
		"ComputeNodeList.get_all_by_uuids":     (*Conductor).nodesByUUIDs,

		"BlockDeviceMappingList.get_by_instance_uuid":  (*Conductor).getBlockDevices,
		"BlockDeviceMappingList.get_by_instance_uuids": (*Conductor).getBlockDevicesOf,
		"VirtualInterface.get_by_uuid":                 (*Conductor).getInterface,
		"VirtualInterface.delete_by_instance_uuid":     (*Conductor).deleteInterfaces,
		"VirtualInterfaceList.get_by_instance_uuid":    (*Conductor).getInterfaces,

		"Migration.get_by_id":                               (*Conductor).getMigration,
		"MigrationList.get_by_filters":                      (*Conductor).migrationsByFilters,
		"MigrationList.get_in_progress_and_error":           (*Conductor).migrationsInProgress,
		"MigrationList.get_unconfirmed_by_dest_compute":     (*Conductor).unconfirmed,
		"ConsoleAuthToken.validate":                         (*Conductor).validateConsole,
		"ConsoleAuthToken.clean_console_auths_for_instance": (*Conductor).cleanConsoles,
		"ConsoleAuthToken.clean_expired_console_auths":      (*Conductor).cleanExpiredConsoles,
		"InstanceGroup.get_by_instance_uuid":                (*Conductor).getGroup,
		"InstanceGroup.get_by_hint":                         (*Conductor).getGroupByHint,
	}
}

func objectMethods() map[string]objectMethod {
	return map[string]objectMethod{
		"Instance.save":                   (*Conductor).saveInstance,
		"Instance.destroy":                (*Conductor).destroyInstance,
		"Instance.refresh":                (*Conductor).refreshInstance,
		"Instance.drop_migration_context": (*Conductor).dropMigrationContext,
		"InstanceInfoCache.save":          (*Conductor).saveInfoCache,
		"InstanceInfoCache.refresh":       (*Conductor).refreshInfoCache,
		"InstanceFault.create":            (*Conductor).createFault,
		"Service.create":                  (*Conductor).createService,
		"Service.save":                    (*Conductor).saveService,
		"Service.destroy":                 (*Conductor).destroyService,
		"ComputeNode.create":              (*Conductor).createNode,
		"ComputeNode.save":                (*Conductor).saveNode,
		"ComputeNode.destroy":             (*Conductor).destroyNode,
		"BlockDeviceMapping.create":       (*Conductor).createBlockDevice,
		"BlockDeviceMapping.save":         (*Conductor).saveBlockDevice,
		"BlockDeviceMapping.destroy":      (*Conductor).destroyBlockDevice,
		"VirtualInterface.create":         (*Conductor).createInterface,
		"VirtualInterface.save":           (*Conductor).saveInterface,
		"VirtualInterface.destroy":        (*Conductor).destroyInterface,
		"Migration.create":                (*Conductor).createMigration,
		"Migration.save":                  (*Conductor).saveMigration,
		"ConsoleAuthToken.authorize":      (*Conductor).authorizeConsole,
		"InstanceGroup.get_hosts":         (*Conductor).groupHosts,
	}
}
