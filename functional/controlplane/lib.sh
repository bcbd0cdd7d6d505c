# Shared settings and process functions. Sourced by up, down, status, compute-*.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
unset PYTHONPATH PYTHONHOME OS_CLOUD
export no_proxy=127.0.0.1,localhost NO_PROXY=127.0.0.1,localhost

STATE=${STATE:-/var/lib/gantry-controlplane}
ETC=$STATE/etc LOG=$STATE/log RUN=$STATE/run
IP=127.0.0.1
REGION=RegionOne
PASS=${GANTRY_CP_PASS:-gantry}            # every password of this control plane
AGENT_HOST=${AGENT_HOST:-gantry-1}   # host name of the L2 agent, and of the compute service under test
FAKE_HOST=${FAKE_HOST:-fake-1}       # host name of compute-fake
CTL_HOST=controller                  # host name of the control services
WORKERS=${WORKERS:-1}
WITH_NEUTRON=${WITH_NEUTRON:-1}
# what carries networks: linuxbridge, or openvswitch or ovn with the switch's datapath in user space; OVS_FIREWALL=iptables_hybrid makes hybrid ports
L2=${L2:-linuxbridge}
[ "$L2" = ovn ] && TUNNEL=geneve || TUNNEL=vxlan
OVS_FIREWALL=${OVS_FIREWALL:-openvswitch}
OVSDB=unix:$STATE/ovs/db.sock OVNNB=unix:$STATE/ovs/nb.sock OVNSB=unix:$STATE/ovs/sb.sock   # the databases of the switch and of OVN
export OVS_RUNDIR=$STATE/ovs OVS_DBDIR=$STATE/ovs OVS_SYSCONFDIR=$STATE/ovs OVS_LOGDIR=$STATE/ovs OVN_RUNDIR=$STATE/ovs
WITH_CINDER=0
EXT_BR=br-ext EXT_CIDR=172.24.4.0/24 EXT_GW=172.24.4.1
PRIV_CIDR=10.77.0.0/24
RABBIT=rabbit://openstack:$PASS@$IP:5672/
DB=mysql+pymysql://openstack:$PASS@$IP:3306
# a virtual environment whose Nova and Placement take the place of Debian's (releases/venv makes it); the rest stays
RELEASE_VENV=${RELEASE_VENV:-}
NOVA_BIN=${RELEASE_VENV:+$RELEASE_VENV/bin/}
NOVA_PASTE=${RELEASE_VENV:+$RELEASE_VENV}/etc/nova/api-paste.ini

die() { echo "error: $*" >&2; exit 1; }
now() { date +%s.%N; }
_T=0
stage() { # stage "name": ends the one before it, prints its time
  local t; t=$(now)
  if [ -n "${_STAGE:-}" ]; then
    awk -v a="$_T" -v b="$t" -v n="$_STAGE" 'BEGIN{printf "  %-34s %6.1f s\n", n, b-a}' | tee -a "$LOG/timings"
  fi
  _STAGE=${1:-} _T=$t
}

starttime() { # of a pid, in clock ticks since boot (guards against a reused pid)
  local s; s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  s=${s##*) }; set -- $s; echo "${20}"
}
alive() { # alive NAME
  local pid st cur; [ -f "$RUN/$1.pid" ] || return 1
  read -r pid st < "$RUN/$1.pid"
  cur=$(starttime "$pid") && [ "$cur" = "$st" ]
}
pid_of() { local pid st; read -r pid st < "$RUN/$1.pid" && echo "$pid"; }
start() { # start NAME CMD...: a new process group, its pid and start time recorded
  local name=$1; shift
  alive "$name" && return 0
  setsid "$@" >>"$LOG/$name.log" 2>&1 </dev/null 9>&- &
  local pid=$! i
  for i in 1 2 3 4 5; do [ -r /proc/$pid/stat ] && break; sleep 0.05; done
  echo "$pid $(starttime $pid)" > "$RUN/$name.pid"
  disown $pid 2>/dev/null || true
}
stop() { # stop NAME [seconds]
  local name=$1 max=${2:-15} pid i
  if alive "$name"; then
    pid=$(pid_of "$name")
    kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null
    for ((i = 0; i < max * 10; i++)); do kill -0 -- "-$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL -- "-$pid" 2>/dev/null || true
    echo "  stopped $name ($pid)"
  fi
  rm -f "$RUN/$name.pid"
}
port_open() { (exec 3<>"/dev/tcp/$IP/$1") 2>/dev/null; }
wait_port() { # wait_port NAME PORT [seconds]
  local i max=${3:-300}
  for ((i = 0; i < max * 10; i++)); do
    port_open "$2" && return 0
    alive "$1" || { tail -20 "$LOG/$1.log" >&2; die "$1 died, see $LOG/$1.log"; }
    sleep 0.1
  done
  tail -20 "$LOG/$1.log" >&2; die "$1 did not open port $2 in $max s, see $LOG/$1.log"
}
wait_http() { # wait_http NAME URL [seconds]
  local i max=${3:-300}
  for ((i = 0; i < max * 5; i++)); do
    curl -s -o /dev/null -m 5 "$2" && return 0
    alive "$1" || { tail -20 "$LOG/$1.log" >&2; die "$1 died, see $LOG/$1.log"; }
    sleep 0.2
  done
  die "$1 does not answer at $2, see $LOG/$1.log"
}
daemons() { # in start order
  echo mariadb rabbitmq memcached keystone placement glance-api nova-conductor nova-scheduler nova-api nova-serialproxy nova-novncproxy
  [ -z "$RELEASE_VENV" ] || echo nova-metadata
  [ "$WITH_NEUTRON" = 1 ] || return 0
  case $L2 in openvswitch|ovn) echo ovsdb-server ovs-vswitchd ;; esac
  case $L2 in ovn) echo ovn-nb ovn-sb ovn-northd ovn-controller ;; esac
  echo neutron-server; agents
}
agents() { # Neutron's on this host
  if [ "$L2" = ovn ]; then echo neutron-ovn-metadata-agent
  else echo neutron-$L2-agent neutron-dhcp-agent neutron-l3-agent neutron-metadata-agent; fi
}
install_packages() { # install_packages NAME...: those that are missing, without starting their services
  local missing policy=/usr/sbin/policy-rc.d made=0
  missing=$(for p in "$@"; do [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"; done)
  [ -n "$missing" ] || return 0
  if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' > $policy; chmod 755 $policy; made=1; fi
  apt-get update -qq >> "$LOG/apt.log" 2>&1 || true
  apt-get install -y -qq --no-install-recommends $missing >> "$LOG/apt.log" 2>&1 ||
    { sleep 5; apt-get install -y -qq --no-install-recommends $missing >> "$LOG/apt.log" 2>&1; } ||
    { tail -20 "$LOG/apt.log" >&2; die "apt-get could not install: $missing"; }
  [ $made = 0 ] || rm -f $policy
}
