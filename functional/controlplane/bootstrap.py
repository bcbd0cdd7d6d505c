#!/usr/bin/python3
"""Users, endpoints, networks, flavors, images and a keypair of the control plane. Idempotent.

    bootstrap.py identity    after keystone is up
    bootstrap.py resources   after glance, nova and neutron are up
"""
import os
import sys

import openstack

PASS = os.environ['PASS']
IP = os.environ['IP']
REGION = os.environ['REGION']
STATE = os.environ['STATE']
NEUTRON = os.environ['WITH_NEUTRON'] == '1'
CINDER = os.environ['WITH_CINDER'] == '1'

AUTH = dict(auth_url=f'http://{IP}:5000/v3', username='admin', password=PASS,
            project_name='admin', user_domain_id='default', project_domain_id='default')


def connect(**over):
    return openstack.connect(auth=dict(AUTH, **over), region_name=REGION, app_name='gantry-controlplane',
                             compute_default_microversion='2.93', load_yaml_config=False,
                             load_envvars=False)


def identity():
    c = connect()
    ident = c.identity
    projects = {p.name: p for p in ident.projects()}
    users = {u.name: u for u in ident.users()}
    roles = {r.name: r for r in ident.roles()}
    services = {s.type: s for s in ident.services()}
    endpoints = {(e.service_id, e.interface) for e in ident.endpoints()}

    for name in ('service', 'demo'):
        if name not in projects:
            projects[name] = ident.create_project(name=name, domain_id='default')
    if 'service' not in roles:
        roles['service'] = ident.create_role(name='service')

    def user(name, project, *rs):
        u = users.get(name) or ident.create_user(
            name=name, password=PASS, domain_id='default', default_project_id=projects[project].id)
        for r in rs:
            ident.assign_project_role_to_user(projects[project].id, u.id, roles[r].id)

    for name in ('nova', 'glance', 'placement', 'neutron', 'cinder'):
        user(name, 'service', 'admin', 'service')
    user('demo', 'demo', 'member', 'reader')
    ident.assign_project_role_to_user(projects['demo'].id, users['admin'].id, roles['admin'].id)

    want = [('glance', 'image', f'http://{IP}:9292'),
            ('placement', 'placement', f'http://{IP}:8778'),
            ('nova', 'compute', f'http://{IP}:8774/v2.1')]
    if NEUTRON:
        want.append(('neutron', 'network', f'http://{IP}:9696'))
    if CINDER:
        want.append(('cinderv3', 'volumev3', f'http://{IP}:8776/v3/%(project_id)s'))
    for name, kind, url in want:
        s = services.get(kind) or ident.create_service(name=name, type=kind)
        for iface in ('public', 'internal', 'admin'):
            if (s.id, iface) not in endpoints:
                ident.create_endpoint(service_id=s.id, interface=iface, url=url, region_id=REGION)


def resources():
    admin = connect()
    demo = connect(username='demo', project_name='demo')

    have = {f.name for f in admin.compute.flavors(is_public=None)}
    for i, (name, ram, vcpus, disk) in enumerate(
            [('c1.tiny', 64, 1, 1), ('c1.small', 256, 1, 1), ('c1.medium', 512, 2, 2)], 1):
        if name not in have:
            admin.compute.create_flavor(name=name, ram=ram, vcpus=vcpus, disk=disk, flavorid=str(i))

    images = {i.name for i in admin.image.images()}
    for name, path, fmt, props in [
            ('busybox', f'{STATE}/images/busybox.tar', 'raw', {}),
            ('busybox-disk', f'{STATE}/images/busybox.ext4', 'raw', {})]:
        if name not in images and os.path.exists(path):
            admin.create_image(name, filename=path, disk_format=fmt, container_format='bare',
                               visibility='public', wait=True, use_import=False,
                               allow_duplicates=True, **props)

    pub = open(f'{STATE}/tenant_key.pub').read().strip()
    for c in (admin, demo):
        if not any(k.name == 'tenant' for k in c.compute.keypairs()):
            c.compute.create_keypair(name='tenant', public_key=pub, type='ssh')

    quota = dict(cores=10000, instances=10000, ram=10000000, key_pairs=1000)
    for p in ('admin', 'demo'):
        admin.set_compute_quotas(p, **quota)

    if not NEUTRON:
        return
    for p in ('admin', 'demo'):
        admin.set_network_quotas(p, port=10000, network=1000, subnet=1000, floatingip=1000,
                                 router=100, security_group=1000, security_group_rule=10000)
    net = admin.network
    if not net.find_network('public'):
        n = net.create_network(name='public', is_router_external=True, is_shared=True,
                               provider_network_type='flat', provider_physical_network='physnet1')
        net.create_subnet(name='public-v4', network_id=n.id, ip_version=4,
                          cidr=os.environ['EXT_CIDR'], gateway_ip=os.environ['EXT_GW'],
                          is_dhcp_enabled=True, dns_nameservers=[],
                          allocation_pools=[{'start': '172.24.4.10', 'end': '172.24.4.250'}])
    for c, cidr, suffix in ((demo, os.environ['PRIV_CIDR'], ''),
                            (admin, os.environ['PRIV_CIDR'].replace('10.77.', '10.78.'), '-admin')):
        pid = c.current_project_id
        name = 'private' + suffix
        n = c.network.find_network(name, project_id=pid)
        if not n:
            n = c.network.create_network(name=name)
            s = c.network.create_subnet(name=name + '-v4', network_id=n.id, ip_version=4, cidr=cidr)
            r = c.network.create_router(
                name='router' + suffix,
                external_gateway_info={'network_id': net.find_network('public').id})
            c.network.add_interface_to_router(r, subnet_id=s.id)
        sg = c.network.find_security_group('default', project_id=pid)
        rules = {(r.direction, r.protocol, r.port_range_min)
                 for r in c.network.security_group_rules(security_group_id=sg.id)}
        for proto, port in (('icmp', None), ('tcp', 22)):
            if ('ingress', proto, port) not in rules:
                c.network.create_security_group_rule(
                    security_group_id=sg.id, direction='ingress', ether_type='IPv4', protocol=proto,
                    port_range_min=port, port_range_max=port, remote_ip_prefix='0.0.0.0/0')


{'identity': identity, 'resources': resources}[sys.argv[1]]()
