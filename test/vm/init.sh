#!/bin/sh
# Process 1 of the virtual machine, twice: first in the initramfs, where it puts the machine's root together, then in that
# root, where it runs the command and switches the machine off.
#
# The root is the host's "/", read only over 9p, under an overlay in memory: what is installed outside is there inside, and
# what is written inside is gone at the end. Engines keep their state on a tmpfs, because overlayfs does not nest.
set -e

if [ "$1" != inside ]; then
  export PATH=/bin
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t devtmpfs dev /dev
  exec >/dev/console 2>&1
  while read -r module; do insmod "$module"; done </modules
  mkdir /host /memory /new
  mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host
  mount -t tmpfs -o size=80% memory /memory
  mkdir /memory/upper /memory/work
  mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /new
  for dir in proc sys dev; do mount -o move /$dir /new/$dir; done
  for dir in run tmp var/tmp var/lib/skein var/lib/docker var/lib/containerd; do
    mkdir -p /new/$dir
    mount -t tmpfs -o size=80% memory /new/$dir
  done
  mkdir /new/run/vm
  cp /command /init /release /cache /new/run/vm/
  exec switch_root /new /usr/bin/tini -- /bin/sh /run/vm/init inside
fi

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
# Modules load by themselves as the kernel asks for them, as on any host.
release=$(cat /run/vm/release)
mkdir -p "/lib/modules/$release"
mount --bind "$(cat /run/vm/cache)/lib/modules/$release" "/lib/modules/$release"
hostname vm
ip link set lo up
status=0
# Output and status leave by the ports that machine.ts made, in that order.
output=$(echo /dev/vport*p1)
result=$(echo /dev/vport*p2)
setsid sh /run/vm/command </dev/null >"$output" 2>&1 || status=$?
echo "$status" >"$result"
echo b >/proc/sysrq-trigger
