# What a tenant and an administrator set up together. The variables are what the
# test changes between two plans.

terraform {
  required_providers {
    openstack = { source = "terraform-provider-openstack/openstack" }
  }
}

variable "image_file" { type = string }
variable "suffix" { type = string }
variable "role" { type = string }
variable "groups" { type = list(string) }
variable "allowed_port" { type = number }

provider "openstack" { cloud = "gantry-demo" }

provider "openstack" {
  alias = "admin"
  cloud = "gantry"
}

# Identity, as administrator

resource "openstack_identity_project_v3" "team" {
  provider    = openstack.admin
  name        = "tf-team"
  description = "made by terraform${var.suffix}"
  tags        = ["made", "here"]
}

resource "openstack_identity_user_v3" "worker" {
  provider           = openstack.admin
  name               = "tf-worker"
  default_project_id = openstack_identity_project_v3.team.id
  password           = "a secret of the test"
  description        = "works${var.suffix}"
}

resource "openstack_identity_group_v3" "workers" {
  provider    = openstack.admin
  name        = "tf-workers"
  description = "all of them${var.suffix}"
}

resource "openstack_identity_user_membership_v3" "worker" {
  provider = openstack.admin
  user_id  = openstack_identity_user_v3.worker.id
  group_id = openstack_identity_group_v3.workers.id
}

resource "openstack_identity_role_v3" "operator" {
  provider = openstack.admin
  name     = "tf-operator${var.suffix}"
}

data "openstack_identity_role_v3" "member" {
  provider = openstack.admin
  name     = "member"
}

resource "openstack_identity_role_assignment_v3" "member" {
  provider   = openstack.admin
  user_id    = openstack_identity_user_v3.worker.id
  project_id = openstack_identity_project_v3.team.id
  role_id    = data.openstack_identity_role_v3.member.id
}

resource "openstack_identity_role_assignment_v3" "operators" {
  provider   = openstack.admin
  group_id   = openstack_identity_group_v3.workers.id
  project_id = openstack_identity_project_v3.team.id
  role_id    = openstack_identity_role_v3.operator.id
}

resource "openstack_identity_inherit_role_assignment_v3" "below" {
  provider  = openstack.admin
  user_id   = openstack_identity_user_v3.worker.id
  domain_id = "default"
  role_id   = openstack_identity_role_v3.operator.id
}

resource "openstack_identity_service_v3" "weather" {
  provider    = openstack.admin
  name        = "tf-weather"
  type        = "weather"
  description = "tells it${var.suffix}"
}

resource "openstack_identity_endpoint_v3" "weather" {
  provider        = openstack.admin
  service_id      = openstack_identity_service_v3.weather.id
  endpoint_region = "RegionOne"
  url             = "http://127.0.0.1:9/v1${var.suffix}"
}

resource "openstack_identity_application_credential_v3" "robot" {
  name        = "tf-robot"
  description = "of the tenant"
  roles       = ["member"]
}

resource "openstack_compute_quotaset_v2" "team" {
  provider   = openstack.admin
  project_id = openstack_identity_project_v3.team.id
  instances  = length(var.groups) + 3
  cores      = 8
  ram        = 2048
  key_pairs  = 7
}

resource "openstack_networking_quota_v2" "team" {
  provider            = openstack.admin
  project_id          = openstack_identity_project_v3.team.id
  floatingip          = length(var.groups) + 3
  network             = 4
  port                = 50
  rbac_policy         = 10
  router              = 4
  security_group      = 10
  security_group_rule = 100
  subnet              = 8
  subnetpool          = 2
}

# Compute, as administrator

resource "openstack_compute_flavor_v2" "small" {
  provider    = openstack.admin
  name        = "tf.small"
  ram         = 64
  vcpus       = 1
  disk        = 1
  is_public   = false
  description = "of the test"
  extra_specs = { "hw:cpu_policy" = "shared", "tf:role" = var.role }
}

data "openstack_identity_auth_scope_v3" "demo" { name = "demo" }

resource "openstack_compute_flavor_access_v2" "demo" {
  provider  = openstack.admin
  flavor_id = openstack_compute_flavor_v2.small.id
  tenant_id = data.openstack_identity_auth_scope_v3.demo.project_id
}

resource "openstack_compute_aggregate_v2" "fast" {
  provider = openstack.admin
  name     = "tf-fast${var.suffix}"
  zone     = "nova"
  metadata = { speed = var.role }
  hosts    = [data.openstack_compute_hypervisor_v2.host.hostname]
}

data "openstack_compute_hypervisor_v2" "host" {
  provider = openstack.admin
  hostname = local.host
}

variable "host" { type = string }
locals { host = var.host }

data "openstack_compute_availability_zones_v2" "all" {}

# Images

resource "openstack_images_image_v2" "box" {
  name             = "tf-box${var.suffix}"
  local_file_path  = var.image_file
  container_format = "bare"
  disk_format      = "raw"
  min_ram_mb       = 16
  tags             = ["box", var.role]
  properties       = { container_rootfs = "tar", os_role = var.role }
}

resource "openstack_images_image_v2" "shared" {
  provider         = openstack.admin
  name             = "tf-shared"
  local_file_path  = var.image_file
  container_format = "bare"
  disk_format      = "raw"
  visibility       = "shared"
}

resource "openstack_images_image_access_v2" "demo" {
  provider  = openstack.admin
  image_id  = openstack_images_image_v2.shared.id
  member_id = data.openstack_identity_auth_scope_v3.demo.project_id
}

resource "openstack_images_image_access_accept_v2" "demo" {
  image_id = openstack_images_image_access_v2.demo.image_id
  status   = "accepted"
}

data "openstack_images_image_v2" "busybox" {
  name        = "busybox"
  most_recent = true
}

data "openstack_images_image_ids_v2" "all" { sort = "name:asc" }

# Networks

data "openstack_networking_network_v2" "public" {
  name     = "public"
  external = true
}

resource "openstack_networking_addressscope_v2" "scope" {
  provider   = openstack.admin
  name       = "tf-scope${var.suffix}"
  ip_version = 4
  shared     = true
}

resource "openstack_networking_subnetpool_v2" "pool" {
  provider          = openstack.admin
  name              = "tf-pool${var.suffix}"
  prefixes          = ["10.231.0.0/16"]
  default_prefixlen = 24
  min_prefixlen     = 20
  max_prefixlen     = 28
  shared            = true
  address_scope_id  = openstack_networking_addressscope_v2.scope.id
  tags              = [var.role]
}

resource "openstack_networking_network_v2" "net" {
  name                  = "tf-net" # of an instance: the provider finds it again by this name
  description           = "of the test${var.suffix}"
  admin_state_up        = true
  port_security_enabled = true
  mtu                   = 1400
  tags                  = ["net", var.role]
}

resource "openstack_networking_rbac_policy_v2" "net" {
  action        = "access_as_shared"
  object_id     = openstack_networking_network_v2.net.id
  object_type   = "network"
  target_tenant = openstack_identity_project_v3.team.id
}

resource "openstack_networking_subnet_v2" "sub" {
  name            = "tf-sub${var.suffix}"
  network_id      = openstack_networking_network_v2.net.id
  cidr            = "10.230.1.0/24"
  ip_version      = 4
  dns_nameservers = ["10.230.1.2", "10.230.1.3"]
  allocation_pool {
    start = "10.230.1.10"
    end   = "10.230.1.99"
  }
  tags = [var.role]
}

resource "openstack_networking_subnet_v2" "of_pool" {
  name          = "tf-of-pool"
  network_id    = openstack_networking_network_v2.second.id
  subnetpool_id = openstack_networking_subnetpool_v2.pool.id
  prefix_length = 26
}

resource "openstack_networking_subnet_v2" "six" {
  name              = "tf-six"
  network_id        = openstack_networking_network_v2.second.id
  cidr              = "fd00:231::/64"
  ip_version        = 6
  ipv6_address_mode = "slaac"
  ipv6_ra_mode      = "slaac"
}

resource "openstack_networking_network_v2" "second" { name = "tf-second" }

resource "openstack_networking_subnet_route_v2" "away" {
  subnet_id        = openstack_networking_subnet_v2.sub.id
  destination_cidr = "10.232.0.0/24"
  next_hop         = "10.230.1.4"
}

resource "openstack_networking_router_v2" "out" {
  name                = "tf-out${var.suffix}"
  external_network_id = data.openstack_networking_network_v2.public.id
  tags                = [var.role]
}

resource "openstack_networking_router_interface_v2" "sub" {
  router_id = openstack_networking_router_v2.out.id
  subnet_id = openstack_networking_subnet_v2.sub.id
}

resource "openstack_networking_router_interface_v2" "of_pool" {
  router_id = openstack_networking_router_v2.out.id
  port_id   = openstack_networking_port_v2.of_router.id
}

resource "openstack_networking_port_v2" "of_router" {
  name       = "tf-of-router"
  network_id = openstack_networking_network_v2.second.id
  fixed_ip {
    subnet_id  = openstack_networking_subnet_v2.of_pool.id
    ip_address = openstack_networking_subnet_v2.of_pool.gateway_ip
  }
}

resource "openstack_networking_router_route_v2" "far" {
  depends_on       = [openstack_networking_router_interface_v2.sub]
  router_id        = openstack_networking_router_v2.out.id
  destination_cidr = "10.233.0.0/24"
  next_hop         = "10.230.1.5"
}

resource "openstack_networking_router_v2" "within" { name = "tf-within" }

resource "openstack_networking_port_v2" "of_within" {
  name       = "tf-of-within"
  network_id = openstack_networking_network_v2.net.id
  fixed_ip {
    subnet_id  = openstack_networking_subnet_v2.sub.id
    ip_address = "10.230.1.8"
  }
}

resource "openstack_networking_router_interface_v2" "within" {
  router_id = openstack_networking_router_v2.within.id
  port_id   = openstack_networking_port_v2.of_within.id
}

resource "openstack_networking_router_routes_v2" "farther" {
  router_id = openstack_networking_router_interface_v2.within.router_id
  routes {
    destination_cidr = "10.234.0.0/24"
    next_hop         = "10.230.1.6"
  }
  routes {
    destination_cidr = "10.236.0.0/24"
    next_hop         = "10.230.1.7"
  }
}

resource "openstack_networking_secgroup_v2" "web" {
  name                 = "tf-web${var.suffix}"
  description          = "as terraform would have it"
  delete_default_rules = true
  tags                 = [var.role]
}

resource "openstack_networking_secgroup_v2" "more" {
  name        = "tf-more"
  description = "another"
}

resource "openstack_networking_secgroup_rule_v2" "in" {
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = "tcp"
  port_range_min    = var.allowed_port
  port_range_max    = var.allowed_port
  remote_ip_prefix  = "0.0.0.0/0"
  security_group_id = openstack_networking_secgroup_v2.web.id
}

resource "openstack_networking_secgroup_rule_v2" "ping" {
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = "icmp"
  remote_group_id   = openstack_networking_secgroup_v2.more.id
  security_group_id = openstack_networking_secgroup_v2.web.id
}

resource "openstack_networking_address_group_v2" "friends" {
  name      = "tf-friends${var.suffix}"
  addresses = ["10.230.1.0/25", "10.235.0.0/16"]
}

resource "openstack_networking_secgroup_rule_v2" "friends" {
  direction               = "ingress"
  ethertype               = "IPv4"
  protocol                = "udp"
  port_range_min          = 53
  port_range_max          = 60
  remote_address_group_id = openstack_networking_address_group_v2.friends.id
  security_group_id       = openstack_networking_secgroup_v2.more.id
}

resource "openstack_networking_secgroup_rule_v2" "out" {
  direction         = "egress"
  ethertype         = "IPv4"
  security_group_id = openstack_networking_secgroup_v2.web.id
}

resource "openstack_networking_port_v2" "fixed" {
  name               = "tf-fixed${var.suffix}"
  network_id         = openstack_networking_network_v2.net.id
  admin_state_up     = true
  security_group_ids = [openstack_networking_secgroup_v2.web.id]
  tags               = [var.role]
  fixed_ip {
    subnet_id  = openstack_networking_subnet_v2.sub.id
    ip_address = "10.230.1.50"
  }
  allowed_address_pairs {
    ip_address = "10.230.1.200"
  }
  extra_dhcp_option {
    name  = "mtu"
    value = "1400"
  }
}

resource "openstack_networking_port_v2" "spare" {
  name                  = "tf-spare"
  network_id            = openstack_networking_network_v2.second.id
  no_security_groups    = true
  port_security_enabled = false
  fixed_ip {
    subnet_id = openstack_networking_subnet_v2.of_pool.id
  }
  fixed_ip {
    subnet_id = openstack_networking_subnet_v2.six.id
  }
}

resource "openstack_networking_port_secgroup_associate_v2" "associated" {
  port_id            = openstack_networking_port_v2.associated.id
  security_group_ids = [openstack_networking_secgroup_v2.more.id]
}

resource "openstack_networking_port_v2" "associated" {
  name           = "tf-associated"
  network_id     = openstack_networking_network_v2.second.id
  admin_state_up = true
  fixed_ip {
    subnet_id = openstack_networking_subnet_v2.of_pool.id
  }
  lifecycle { ignore_changes = [security_group_ids] }
}

resource "openstack_networking_floatingip_v2" "ip" {
  pool        = "public"
  description = "of the first${var.suffix}"
  tags        = [var.role]
}

resource "openstack_networking_floatingip_associate_v2" "ip" {
  floating_ip = openstack_networking_floatingip_v2.ip.address
  port_id     = openstack_networking_port_v2.fixed.id
  depends_on  = [openstack_networking_router_interface_v2.sub, openstack_compute_instance_v2.first]
}

# Servers

resource "openstack_compute_keypair_v2" "made" { name = "tf-made" }

resource "openstack_compute_keypair_v2" "brought" {
  name       = "tf-brought"
  public_key = openstack_compute_keypair_v2.made.public_key
}

resource "openstack_compute_servergroup_v2" "together" {
  name     = "tf-together"
  policies = ["soft-affinity"]
}

resource "openstack_compute_instance_v2" "first" {
  name         = "tf-first${var.suffix}"
  image_id     = openstack_images_image_v2.box.id
  flavor_id    = openstack_compute_flavor_v2.small.id
  key_pair     = openstack_compute_keypair_v2.brought.name
  user_data    = "#!/bin/sh\ntrue\n"
  metadata     = { role = var.role, fixed = "yes" }
  tags         = ["first", var.role]
  config_drive = false
  depends_on   = [openstack_compute_flavor_access_v2.demo, openstack_networking_router_interface_v2.sub]
  network {
    port = openstack_networking_port_v2.fixed.id
  }
  scheduler_hints {
    group = openstack_compute_servergroup_v2.together.id
  }
}

resource "openstack_compute_instance_v2" "more" {
  count             = 2
  name              = "tf-more-${count.index}"
  image_name        = "busybox"
  flavor_name       = "m1.tiny"
  availability_zone = "nova"
  security_groups   = var.groups
  metadata          = { role = var.role }
  power_state       = count.index == 1 && var.suffix != "" ? "shutoff" : "active"
  depends_on        = [openstack_networking_secgroup_v2.more, openstack_networking_subnet_v2.of_pool, openstack_networking_subnet_v2.six]
  network {
    uuid = openstack_networking_network_v2.second.id
  }
}

# What is read again

data "openstack_compute_instance_v2" "first" { id = openstack_compute_instance_v2.first.id }

data "openstack_compute_flavor_v2" "small" {
  provider  = openstack.admin
  flavor_id = openstack_compute_flavor_v2.small.id
}

data "openstack_compute_keypair_v2" "made" { name = openstack_compute_keypair_v2.made.name }

data "openstack_compute_servergroup_v2" "together" { name = openstack_compute_servergroup_v2.together.name }

data "openstack_compute_aggregate_v2" "fast" {
  provider = openstack.admin
  name     = openstack_compute_aggregate_v2.fast.name
}

data "openstack_compute_limits_v2" "demo" {
  provider   = openstack.admin
  project_id = data.openstack_identity_auth_scope_v3.demo.project_id
}

data "openstack_compute_quotaset_v2" "team" {
  provider   = openstack.admin
  project_id = openstack_compute_quotaset_v2.team.project_id
}

data "openstack_networking_quota_v2" "team" {
  provider   = openstack.admin
  project_id = openstack_networking_quota_v2.team.project_id
}

data "openstack_networking_router_v2" "out" { router_id = openstack_networking_router_v2.out.id }

data "openstack_networking_port_v2" "fixed" { port_id = openstack_networking_port_v2.fixed.id }

data "openstack_networking_port_ids_v2" "second" {
  network_id = openstack_networking_network_v2.second.id
  depends_on = [openstack_compute_instance_v2.more]
}

data "openstack_networking_subnet_v2" "sub" { subnet_id = openstack_networking_subnet_v2.sub.id }

data "openstack_networking_subnet_ids_v2" "second" {
  network_id = openstack_networking_network_v2.second.id
  depends_on = [openstack_networking_subnet_v2.of_pool, openstack_networking_subnet_v2.six]
}

data "openstack_networking_secgroup_v2" "web" { secgroup_id = openstack_networking_secgroup_v2.web.id }

data "openstack_networking_subnetpool_v2" "pool" { name = openstack_networking_subnetpool_v2.pool.name }

data "openstack_networking_addressscope_v2" "scope" { name = openstack_networking_addressscope_v2.scope.name }

data "openstack_networking_floatingip_v2" "ip" { address = openstack_networking_floatingip_v2.ip.address }

data "openstack_identity_project_v3" "team" {
  provider   = openstack.admin
  project_id = openstack_identity_project_v3.team.id
}

data "openstack_identity_project_ids_v3" "all" {
  provider   = openstack.admin
  name_regex = "^tf-"
  depends_on = [openstack_identity_project_v3.team]
}

data "openstack_identity_user_v3" "worker" {
  provider = openstack.admin
  name     = openstack_identity_user_v3.worker.name
}

data "openstack_identity_group_v3" "workers" {
  provider = openstack.admin
  name     = openstack_identity_group_v3.workers.name
}

data "openstack_identity_service_v3" "weather" {
  provider = openstack.admin
  name     = openstack_identity_service_v3.weather.name
}

data "openstack_identity_endpoint_v3" "weather" {
  provider   = openstack.admin
  service_id = openstack_identity_endpoint_v3.weather.service_id
}

output "first" { value = openstack_compute_instance_v2.first.id }
output "fixed_ip" { value = data.openstack_compute_instance_v2.first.access_ip_v4 }
output "pool_cidr" { value = openstack_networking_subnet_v2.of_pool.cidr }
output "read_name" { value = data.openstack_compute_instance_v2.first.name }
output "power" { value = openstack_compute_instance_v2.more[*].power_state }
