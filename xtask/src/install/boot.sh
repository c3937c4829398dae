# The first process of namespaces of its own: makes $1 the root of a machine, and becomes its systemd.
#
# What is the host's is read-only in it, or not there: no sysctl, no /tmp, no network, no device but the harmless ones.
set -e
mount -n --make-rprivate /
mount -n --bind "$1" "$1"
cd "$1"
mount -n -t proc proc proc
mount -n --bind proc/sys proc/sys
mount -n -o remount,bind,ro proc/sys
if [ -e proc/sysrq-trigger ]; then mount -n --bind /dev/null proc/sysrq-trigger; fi
mount -n -t sysfs -o ro sysfs sys
mount -n -t cgroup2 cgroup2 sys/fs/cgroup
mount -n -t tmpfs -o mode=755 tmpfs run
mount -n -t tmpfs -o mode=1777 tmpfs tmp
mount -n -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount -n --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -n -t devpts -o newinstance,ptmxmode=666,gid=5,mode=620 devpts dev/pts
mount -n -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mkdir -p host
pivot_root . host
cd /
umount -n -l /host
rmdir /host
hostname stead-try
exec env -i container=stead PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=0
