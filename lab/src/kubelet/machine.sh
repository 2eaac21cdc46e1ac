# The first process of a machine: gives it file systems of its own, and becomes containerd.
#
#   machine.sh NAME WORK CONFIG
#
# NAME is its host name, WORK the lab's folder, CONFIG containerd's configuration. It already is in new namespaces.
set -eu
name=$1 work=$2 config=$3
own=$(mktemp -d "$work/$name.XXXXXX")

mount --make-rprivate /
hostname "$name"
mount -t proc proc /proc

# Settings of the whole machine that a kubelet insists on. It reads here that they are right, and leaves them alone.
mkdir "$own/settings"
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  key=${setting%=*}
  file=$own/settings/${key##*/}
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/$key"
done

# Its network's devices, and the cgroups from its own down.
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
while IFS=: read -r _ controllers _; do
  [ -n "$controllers" ] || continue
  case $controllers in name=*) options=none,$controllers ;; *) options=$controllers ;; esac
  mkdir "/sys/fs/cgroup/${controllers#name=}"
  mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/${controllers#name=}"
done </proc/self/cgroup

# What it writes to these stays in memory and goes with it.
for dir in etc var opt; do
  mkdir -p "$own/$dir/upper" "$own/$dir/work"
  mount -t overlay -o "lowerdir=/$dir,upperdir=$own/$dir/upper,workdir=$own/$dir/work" overlay "/$dir"
done
# An overlay cannot lie on an overlay, and a new machine has run no pods.
for dir in /var/lib/containerd /var/lib/kubelet /var/lib/cni /var/lib/twill /etc/cni /opt/cni /var/log; do
  mkdir -p "$dir"
  mount -t tmpfs -o mode=755 tmpfs "$dir"
done
mkdir "$own/run"
mount -t tmpfs -o mode=755 tmpfs "$own/run"
mkdir -p "$own/run/lock" "$own$work"
mount --bind "$work" "$own$work"
mount --no-mtab --move "$own/run" /run

mkdir -p /etc/cni/net.d /opt/cni/bin
mount --make-rshared /
exec containerd --config "$config"
