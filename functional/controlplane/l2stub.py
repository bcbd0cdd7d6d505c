#!/usr/bin/python3
"""A stand-in for an L2 agent on host names that have none (that of compute-fake).

Neutron binds a port only to a host with a live agent. This reports such an agent for each host
named on the command line, and reports every port bound there as up, which is what makes neutron
send network-vif-plugged to nova. It plugs nothing.

    l2stub.py --config-file neutron.conf -- HOST...
"""
import eventlet
eventlet.monkey_patch()

import datetime  # noqa: E402
import sys  # noqa: E402

from neutron_lib.agent import topics  # noqa: E402
from neutron_lib import context  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_service import loopingcall  # noqa: E402
import oslo_messaging  # noqa: E402

from neutron.agent import rpc as agent_rpc  # noqa: E402
from neutron.common import config  # noqa: E402
from neutron.conf.agent import common as agent_conf  # noqa: E402

cut = sys.argv.index('--')
HOSTS = sys.argv[cut + 1:]
agent_conf.register_agent_state_opts_helper(cfg.CONF)
config.register_common_config_options()
config.init(sys.argv[1:cut])
config.setup_logging()
ctx = context.get_admin_context_without_session()
state_rpc = agent_rpc.PluginReportStateAPI(topics.REPORTS)
plugin = agent_rpc.PluginApi(topics.PLUGIN)
first = set(HOSTS)


def report():
    for h in HOSTS:
        st = {'binary': 'neutron-linuxbridge-agent', 'host': h, 'topic': 'N/A',
              'agent_type': 'Linux bridge agent',
              'configurations': {'bridge_mappings': {'physnet1': 'br-ext'}, 'interface_mappings': {},
                                 'tunneling_ip': '172.24.4.1', 'tunnel_types': ['vxlan'],
                                 'l2_population': True, 'devices': 0, 'extensions': []}}
        if h in first:
            st['start_flag'] = True
        state_rpc.report_state(ctx, st, use_call=h in first)
        first.discard(h)


class Endpoint:
    target = oslo_messaging.Target(version='1.5')

    def port_update(self, context, **kw):
        port = kw.get('port') or {}
        host = port.get('binding:host_id')
        if host in HOSTS and port.get('status') != 'ACTIVE' and port.get('device_owner', '').startswith('compute:'):
            print(datetime.datetime.now(), 'up', port['id'], host, flush=True)
            plugin.update_device_up(ctx, port['id'], 'lb-stub-' + host, host)

    def port_delete(self, context, **kw):
        pass


conn = agent_rpc.create_consumers([Endpoint()], topics.AGENT,
                                  [[topics.PORT, topics.UPDATE], [topics.PORT, topics.DELETE]])
loop = loopingcall.FixedIntervalLoopingCall(report)
loop.start(interval=15)
loop.wait()
