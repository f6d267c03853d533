#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boot systemd as the first process of a container, and end that when standard input ends. The container has the
# machine's files under an overlay, namespaces and a cgroup of its own, and no units but those that are named below.
# Prints the process's id. Arguments, after `outside`, are folders that it shall have on whatever file system they lie.
set -eu

place=$1
shift

if [ "$place" = outside ]; then
    mount -t tmpfs tmpfs /mnt
    cd /mnt
    mkdir cgroup upper work root
    mount -t cgroup2 cgroup2 cgroup
    group=cgroup/emptcpd-$$
    mkdir "$group"
    (
        echo 0 >"$group/cgroup.procs"
        exec unshare --cgroup --ipc --mount --net --pid --uts --fork --kill-child sh "$0" inside "$@"
    ) &
    exec >/dev/null
    # The first process, not its parent: who waits for it knows then that all others are gone.
    # shellcheck disable=SC2046 # a number
    read -r _ || kill -KILL $(cat "/proc/$!/task/$!/children") || true
    wait $! || true
    find "$group" -depth -type d -exec rmdir {} +
    exit
fi

# /proc is still the machine's, and numbers processes as it does.
read -r init _ </proc/self/stat
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
cd root
mount -t proc proc proc
mount --bind -o ro proc/sys proc/sys
mount -t sysfs sysfs sys
mount -t bpf bpf sys/fs/bpf
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount --rbind /dev dev
for folder; do
    mkdir -p ".$folder"
    mount --rbind "$folder" ".$folder"
done

rm -rf etc/systemd etc/emptcp
mkdir -p etc/systemd/system/basic.target.wants
for unit in basic.target network.target shutdown.target sysinit.target systemd-journald.service \
    systemd-journald.socket systemd-journald-dev-log.socket; do
    ln -s "/lib/systemd/system/$unit" etc/systemd/system
done
ln -s ../systemd-journald.service etc/systemd/system/basic.target.wants

pivot_root . mnt
umount --lazy mnt
cd /
mount --make-rshared /
echo "$init"
exec env -i container=test SYSTEMD_UNIT_PATH=/etc/systemd/system \
    /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=no >/dev/null
