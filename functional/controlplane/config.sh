# Writes every configuration file under $ETC. Sourced by up.
auth_section() { # auth_section SECTION USER
  cat <<X
[$1]
auth_url = http://$IP:5000/v3
auth_type = password
username = $2
password = $PASS
project_name = service
user_domain_id = default
project_domain_id = default
region_name = $REGION
X
}
token_section() { # token_section USER
  auth_section keystone_authtoken "$1"
  cat <<X
www_authenticate_uri = http://$IP:5000/v3
memcached_servers = $IP:11211
service_token_roles = service
service_token_roles_required = false

[oslo_concurrency]
lock_path = $STATE/lock

[oslo_messaging_rabbit]
heartbeat_in_pthread = false
X
}

write_config() {
  mkdir -p "$ETC"/{keystone,placement,glance,nova,neutron,mariadb,rabbitmq}

  cat > "$ETC/rabbitmq/rabbitmq.conf" <<X
listeners.tcp.1 = $IP:5672
default_user = openstack
default_pass = $PASS
loopback_users = none
disk_free_limit.absolute = 50MB
log.console = true
log.console.level = warning
log.file = false
X
  echo '[].' > "$ETC/rabbitmq/enabled_plugins"

  cat > "$ETC/keystone/keystone.conf" <<X
[DEFAULT]
log_file = $LOG/keystone.log
max_token_size = 255
[database]
connection = $DB/keystone
[token]
provider = fernet
expiration = 86400
[fernet_tokens]
key_repository = $STATE/keystone/fernet-keys
[credential]
key_repository = $STATE/keystone/credential-keys
[cache]
enabled = true
backend = dogpile.cache.memcached
memcache_servers = $IP:11211
[identity]
password_hash_rounds = 4
X

  { cat <<X
[DEFAULT]
log_file = $LOG/placement.log
[placement_database]
connection = $DB/placement
[api]
auth_strategy = keystone
X
    token_section placement; } > "$ETC/placement/placement.conf"

  { cat <<X
[DEFAULT]
bind_host = $IP
bind_port = 9292
workers = $WORKERS
transport_url = $RABBIT
enabled_import_methods = []
node_staging_uri = file://$STATE/glance/staging
image_cache_dir = $STATE/glance/cache
show_multiple_locations = false
[database]
connection = $DB/glance
[paste_deploy]
flavor = keystone
config_file = /etc/glance/glance-api-paste.ini
[glance_store]
stores = file
default_store = file
filesystem_store_datadir = $STATE/glance/images
X
    token_section glance; } > "$ETC/glance/glance-api.conf"

  # what every nova service shares, compute included
  {
    cat <<X
[DEFAULT]
transport_url = $RABBIT
my_ip = $IP
state_path = $STATE/nova
use_rootwrap_daemon = false
vif_plugging_timeout = ${VIF_TIMEOUT:-60}
[glance]
api_servers = http://$IP:9292
[vnc]
enabled = false
[spice]
enabled = false
X
    auth_section placement placement
    auth_section neutron neutron
    cat <<X
service_metadata_proxy = true
metadata_proxy_shared_secret = $PASS
default_floating_pool = public
X
    auth_section service_user nova
    echo "send_service_user_token = true"
    [ "$WITH_CINDER" = 1 ] && { auth_section cinder cinder; echo "catalog_info = volumev3::internalURL"; }
    token_section nova
  } > "$ETC/nova/common.conf"

  cat > "$ETC/nova/nova.conf" <<X
[DEFAULT]
host = $CTL_HOST
enabled_apis = osapi_compute,metadata
osapi_compute_listen = $IP
osapi_compute_workers = $WORKERS
metadata_listen = $IP
metadata_workers = $WORKERS
allow_resize_to_same_host = true
reclaim_instance_interval = ${RECLAIM:-0}
[api_database]
connection = $DB/nova_api
[database]
connection = $DB/nova_cell1
[api]
auth_strategy = keystone
[conductor]
workers = $WORKERS
[scheduler]
workers = $WORKERS
discover_hosts_in_cells_interval = 5
[filter_scheduler]
track_instance_changes = true
enabled_filters = ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter,SameHostFilter,DifferentHostFilter,NUMATopologyFilter
[wsgi]
api_paste_config = $NOVA_PASTE
[serial_console]
enabled = true
serialproxy_host = $IP
serialproxy_port = 6083
base_url = ws://$IP:6083/
proxyclient_address = $IP
[vnc]
novncproxy_host = $IP
novncproxy_port = 6080
X

  cat > "$ETC/nova/gantry.conf" <<X
[DEFAULT]
host = $AGENT_HOST
state_path = $STATE/gantry
shutdown_timeout = 10
periodic_fuzzy_delay = 1
[oslo_messaging_notifications]
driver = messagingv2
[notifications]
notification_format = both
[vnc]
enabled = true
server_listen = $IP
server_proxyclient_address = $IP
novncproxy_base_url = http://$IP:6080/vnc_lite.html
[serial_console]
enabled = true
base_url = ws://$IP:6083/
proxyclient_address = $IP
[os_vif_ovs]
ovsdb_connection = $OVSDB
[gantry]
cgroup = gantry-$(echo "$STATE" | cksum | cut -d' ' -f1)
X

  [ "$WITH_NEUTRON" = 1 ] || return 0
  {
    cat <<X
[DEFAULT]
host = $AGENT_HOST
bind_host = $IP
bind_port = 9696
transport_url = $RABBIT
state_path = $STATE/neutron
api_paste_config = /etc/neutron/api-paste.ini
api_extensions_path =
core_plugin = ml2
service_plugins = $([ "$L2" != ovn ] || echo ovn-)router
api_workers = $WORKERS
rpc_workers = $WORKERS
dhcp_agents_per_network = 1
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = true
[agent]
report_interval = 15
[database]
connection = $DB/neutron
[experimental]
linuxbridge = true
[ovs]
ovsdb_connection = $OVSDB
[ovn]
ovn_nb_connection = $OVNNB
ovn_sb_connection = $OVNSB
ovn_metadata_enabled = true
X
    auth_section nova nova
    auth_section placement placement
    token_section neutron
  } > "$ETC/neutron/neutron.conf"

  cat > "$ETC/neutron/ml2.ini" <<X
[ml2]
type_drivers = flat,$TUNNEL,local
tenant_network_types = $TUNNEL
mechanism_drivers = $L2$([ "$L2" != linuxbridge ] || echo ,l2population)
extension_drivers = port_security
[ml2_type_flat]
flat_networks = physnet1
[ml2_type_$TUNNEL]
vni_ranges = 1:1000
$([ $TUNNEL != geneve ] || echo max_header_size = 38)
[securitygroup]
enable_ipset = true
X
  cat > "$ETC/neutron/linuxbridge.ini" <<X
[linux_bridge]
bridge_mappings = physnet1:$EXT_BR
[vxlan]
enable_vxlan = true
local_ip = $EXT_GW
l2_population = true
[securitygroup]
firewall_driver = iptables
enable_security_group = true
enable_ipset = true
[privsep]
# not by sudo, which would put the system's ebtables before ours
helper_command = privsep-helper --config-file $ETC/neutron/neutron.conf --config-file $ETC/neutron/linuxbridge.ini
X
  cat > "$ETC/neutron/openvswitch.ini" <<X
[ovs]
datapath_type = netdev
local_ip = $EXT_GW
bridge_mappings = physnet1:$EXT_BR
ovsdb_connection = $OVSDB
[agent]
tunnel_types = vxlan
[securitygroup]
firewall_driver = $OVS_FIREWALL
[privsep]
helper_command = privsep-helper --config-file $ETC/neutron/neutron.conf --config-file $ETC/neutron/openvswitch.ini
X
  cat > "$ETC/neutron/dhcp.ini" <<X
[DEFAULT]
interface_driver = $L2
dhcp_driver = neutron.agent.linux.dhcp.Dnsmasq
enable_isolated_metadata = true
dnsmasq_local_resolv = false
X
  cat > "$ETC/neutron/l3.ini" <<X
[DEFAULT]
interface_driver = $L2
agent_mode = legacy
X
  cat > "$ETC/neutron/metadata.ini" <<X
[DEFAULT]
nova_metadata_host = $IP
nova_metadata_port = 8775
metadata_proxy_shared_secret = $PASS
metadata_workers = 1
X
}
