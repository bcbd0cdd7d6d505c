#!/usr/bin/python3
"""Writes zed.json: an instance as Nova sends it, and what Nova's own code makes of it in versioned notifications.

Run it where Nova is installed: /usr/bin/python3 capture.py > zed.json
"""
import datetime
import json
import sys

from nova import conf, context, objects, rpc
from nova.network import model
from nova.notifications.objects import exception, flavor, instance
from nova.objects import base

conf.CONF([], project='nova', default_config_files=[])
conf.CONF.set_override('notification_format', 'both', 'notifications')
objects.register_all()
rpc.NOTIFIER = type('Sender', (), {'is_enabled': lambda self: True})()

when = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)


def make_flavor(name):
    return objects.Flavor(
        id=7, name=name, flavorid='f-' + name, memory_mb=512, vcpus=2, root_gb=3, ephemeral_gb=1, swap=0, rxtx_factor=1.0,
        vcpu_weight=0, disabled=False, is_public=True, extra_specs={'gantry:pids': '99'}, description=None,
        created_at=when, updated_at=None, deleted_at=None, deleted=False)


def make_instance():
    ip = model.FixedIP(address='10.0.0.5', floating_ips=[])
    six = model.FixedIP(address='fd00::5', floating_ips=[])
    vif = model.VIF(id='6f3a3a4a-0f0e-4f4e-8d8d-0a0b0c0d0e0f', address='fa:16:3e:00:00:01', devname='tap6f3a3a4a-0f',
                    type='bridge', network=model.Network(
                        id='n1', bridge='brq', label='private', subnets=[
                            model.Subnet(cidr='10.0.0.0/24', ips=[ip], gateway=model.IP('10.0.0.1', type='gateway'), dns=[]),
                            model.Subnet(cidr='fd00::/64', ips=[six], gateway=model.IP('fd00::1', type='gateway'), dns=[])]))
    inst = objects.Instance(
        id=42, uuid='c0ffee00-0000-4000-8000-000000000001', user_id='u1', project_id='p1', reservation_id='r-1',
        display_name='web', display_description='a web server', hostname='web', host='h1', node='h1.example', os_type=None,
        architecture=None, availability_zone='nova', image_ref='155d900f-4e14-4e4c-a73d-069cbf4541e6', key_name='key',
        kernel_id='', ramdisk_id='', created_at=when, launched_at=when, terminated_at=None, deleted_at=None, updated_at=when,
        vm_state='active', power_state=1, task_state='rebuilding', progress=0, metadata={'a': 'b'}, locked=True,
        auto_disk_config=False, system_metadata={'locked_reason': 'mine', 'image_min_ram': '0'}, deleted=False,
        root_gb=3, ephemeral_gb=1, memory_mb=512, vcpus=2, instance_type_id=7, launch_index=0)
    inst.flavor = make_flavor('small')
    inst.old_flavor = inst.new_flavor = None
    inst.keypairs = objects.KeyPairList(objects=[objects.KeyPair(
        id=1, name='key', user_id='u1', fingerprint='00:11', public_key='ssh-rsa AAAA', type='ssh',
        created_at=when, updated_at=None, deleted_at=None, deleted=False)])
    inst.tags = objects.TagList(objects=[objects.Tag(resource_id=inst.uuid, tag='blue')])
    inst.trusted_certs = objects.TrustedCerts(ids=['cert-1', 'cert-2'])
    inst.info_cache = objects.InstanceInfoCache(
        instance_uuid=inst.uuid, network_info=model.NetworkInfo([vif]), created_at=when, updated_at=None, deleted_at=None,
        deleted=False)
    inst.obj_reset_changes(recursive=True)
    return inst


ctxt = context.RequestContext(user_id='u2', project_id='p2', request_id='req-1')
inst = make_instance()
fault = exception.ExceptionPayload(
    module_name='nova.exception', function_name='rebuild_instance', exception='InstanceInvalidState',
    exception_message='no', traceback='InstanceInvalidState: no')
made = {
    'pause': instance.InstanceActionPayload(ctxt, inst, None),
    'reboot': instance.InstanceActionPayload(ctxt, inst, fault),
    'create': instance.InstanceCreatePayload(ctxt, inst, None, None),
    'rebuild': instance.InstanceActionRebuildPayload(ctxt, inst, fault),
    'resize_prep': instance.InstanceActionResizePrepPayload(ctxt, inst, None, flavor.FlavorPayload(make_flavor('big'))),
    'rescue': instance.InstanceActionRescuePayload(ctxt, inst, None, '155d900f-4e14-4e4c-a73d-069cbf4541e7'),
    'snapshot': instance.InstanceActionSnapshotPayload(ctxt, inst, None, '155d900f-4e14-4e4c-a73d-069cbf4541e8'),
}
payloads = {}
for name, payload in made.items():
    payload.obj_reset_changes(recursive=True)
    payloads[name] = payload.obj_to_primitive()
big = make_flavor('big')
big.obj_reset_changes(recursive=True)
json.dump({'instance': base.NovaObjectSerializer().serialize_entity(ctxt, inst), 'new_flavor': big.obj_to_primitive(),
           'payloads': payloads}, sys.stdout, indent=1, sort_keys=True)
print()
