//! What `cargo xtask deb --try` does in its Debian, one after the other.

/// What the scripts use. (`! command` ends no script.) Before Linux 6.5 the service creates nothing for a caller whom no rule
/// names: alice's processes are root's to ask for then.
pub(super) const WORDS: &str = r#"
fails() { if "$@"; then return 1; fi; }
skip() { echo "skipped: $*"; exit 0; }
systemd() { systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'; }
throttled() { sed -n 's/^nr_throttled //p' $1/cpu.stat; }
serves_herself() { test "$(printf '%s\n' 6.5 "$(uname -r)" | sort -V | head -n 1)" = 6.5; }
as_alice() {
    if serves_herself; then runuser -u alice -- stead run "$@"; else stead run --as alice --s4u --logon batch "$@"; fi
}
until_gone() { for i in $(seq 300); do kill -0 $1 2>/dev/null || return 0; sleep 0.1; done; return 1; }
"#;

/// After so many steps the package is installed and tried, and nothing else was done to it.
pub(super) const INSTALLED: usize = 7;
/// What takes a kernel of its own: cgroup controllers, and a root whose capabilities are all of them. A systemd that does not
/// know `DelegateSubgroup=` (before 254) starts the service in the unit's own group, where no process may be once
/// controllers are turned on for what is below it.
pub(super) const IN_A_MACHINE: &[(&str, &str)] = &[
    (
        "limits of a process hold, are lowered freely, and raised only as a rule has them",
        r#"test "$(as_alice --limit nofile=100 -- sh -c 'ulimit -Hn')" = 100
           test "$(as_alice --limit as=100M -- sh -c 'head -c 300M /dev/zero | tail > /dev/null; echo $?')" = 1
           test "$(as_alice --limit nproc=10 -- sh -c '(for i in $(seq 20); do sleep 1 & done) 2> /dev/null; echo $?')" = 2
           serves_herself || skip "lowered, yes; without a rule the service has nothing for her on Linux $(uname -r)"
           fails as_alice --limit nofile=600000 -- true
           printf '[[allow]]\ncallers = { users = ["alice"] }\nclients = { users = ["alice"] }\n' > /etc/stead/policy.d/try.toml
           printf 'privileges = ["assign-primary-token", "increase-quota"]\n' >> /etc/stead/policy.d/try.toml
           printf 'programs = "any"\nlimits = { open-files = 600000 }\n' >> /etc/stead/policy.d/try.toml
           systemctl reload stead
           test "$(as_alice --limit nofile=600000 -- sh -c 'ulimit -Hn')" = 600000
           fails as_alice --limit nofile=600001 -- true
           rm /etc/stead/policy.d/try.toml
           systemctl reload stead
           fails as_alice --limit nofile=600000 -- true"#,
    ),
    (
        "limits of the unit's bound the clients and the service together, also over a restart",
        r#"group=/sys/fs/cgroup/system.slice/stead.service
           systemctl set-property --runtime stead.service MemoryMax=400M TasksMax=100
           test "$(cat $group/memory.max)" = 419430400 -a "$(cat $group/pids.max)" = 100
           in_batch() { stead run --as alice --s4u --logon batch -- sh -c "$1"; }
           test "$(in_batch 'head -c 800M /dev/zero | tail > /dev/null; echo $?')" = 137
           test "$(in_batch '(for i in $(seq 150); do sleep 1 & done) 2> /dev/null; echo $?')" = 2
           systemctl is-active stead.service
           as_alice -- sh -c 'echo $$ > /tmp/process; until test -e /tmp/go; do sleep 0.1; done
               head -c 800M /dev/zero | tail > /dev/null; echo $? > /tmp/filled; exec sleep 4321' > /dev/null &
           until process=$(cat /tmp/process) && test -n "$process"; do sleep 0.1; done
           its=$(cat /proc/$process/cgroup)
           systemctl restart stead
           test "$(cat /proc/$process/cgroup)" = "$its"
           test "$(cat $group/memory.max)" = 419430400 -a "$(cat $group/pids.max)" = 100
           touch /tmp/go
           until filled=$(cat /tmp/filled) && test -n "$filled"; do sleep 0.1; done
           test "$filled" = 137
           stead kill $process
           systemctl set-property --runtime stead.service MemoryMax=infinity TasksMax=infinity CPUQuota=20%
           test "$(cat $group/cpu.max)" = '20000 100000'
           before=$(throttled $group)
           in_batch 'timeout 5 sh -c "while :; do :; done"; true'
           test "$(throttled $group)" -gt "$((before + 2))"
           systemctl set-property --runtime stead.service CPUQuota=
           rm /tmp/process /tmp/go /tmp/filled
           in_batch true"#,
    ),
    (
        "before systemd 254, controllers for the clients alone are in the way of a restart while one runs, until they are off again",
        r#"test "$(systemd)" -lt 254 || skip "this is systemd $(systemd)"
           group=/sys/fs/cgroup/system.slice/stead.service
           echo '+memory +pids +cpu' > $group/cgroup.subtree_control
           echo 100M > $group/clients/memory.max
           test "$(stead run --as alice --s4u --logon batch -- sh -c 'head -c 300M /dev/zero | tail > /dev/null; echo $?')" = 137
           as_alice -- sleep 4321 > /dev/null &
           until process=$(pgrep -f '^sleep 4321'); do sleep 0.1; done
           fails systemctl restart stead
           echo '-memory -pids -cpu' > $group/cgroup.subtree_control
           systemctl reset-failed stead.service
           systemctl restart stead
           stead ps | grep "$process "
           stead kill $process
           until_gone $process"#,
    ),
    (
        "from systemd 254 on, controllers for the clients alone hold, also over a restart",
        r#"test "$(systemd)" -ge 254 || skip "this is systemd $(systemd)"
           group=/sys/fs/cgroup/system.slice/stead.service
           echo '+memory +pids +cpu' > $group/cgroup.subtree_control
           echo 100M > $group/clients/memory.max
           echo 20 > $group/clients/pids.max
           in_batch() { stead run --as alice --s4u --logon batch -- sh -c "$1"; }
           test "$(in_batch 'head -c 300M /dev/zero | tail > /dev/null; echo $?')" = 137
           test "$(in_batch '(for i in $(seq 40); do sleep 1 & done) 2> /dev/null; echo $?')" = 2
           as_alice -- sh -c 'echo $$ > /tmp/process; until test -e /tmp/go; do sleep 0.1; done
               head -c 300M /dev/zero | tail > /dev/null; echo $? > /tmp/filled
               (for i in $(seq 40); do sleep 1 & done) 2> /dev/null; echo $? > /tmp/forked; exec sleep 4321' > /dev/null &
           until process=$(cat /tmp/process) && test -n "$process"; do sleep 0.1; done
           its=$(cat /proc/$process/cgroup)
           systemctl restart stead
           grep -x 0::/system.slice/stead.service/service /proc/$(systemctl show -p MainPID --value stead)/cgroup
           test "$(cat /proc/$process/cgroup)" = "$its"
           test "$(cat $group/clients/memory.max)" = 104857600 -a "$(cat $group/clients/pids.max)" = 20
           touch /tmp/go
           until forked=$(cat /tmp/forked) && test -n "$forked"; do sleep 0.1; done
           test "$(cat /tmp/filled)" = 137 -a "$forked" = 2
           stead kill $process
           echo '20000 100000' > $group/clients/cpu.max
           in_batch 'timeout 5 sh -c "while :; do :; done"; true'
           test "$(throttled $group/clients)" -gt 2
           test "$(throttled $group/service)" = 0
           rm /tmp/process /tmp/go /tmp/filled /tmp/forked
           echo '-memory -pids -cpu' > $group/cgroup.subtree_control
           in_batch true"#,
    ),
];

/// What is done in it, one after the other: what is shown, and a script that fails where it does not hold.
pub(super) const STEPS: &[(&str, &str)] = &[
    ("the package is installed", "useradd -m alice; dpkg -i /stead.deb"),
    (
        "users, folders and PAM services are there",
        r#"getent group stead-audit
           test "$(stat -c '%a %U %G' /run/stead)" = '755 root root'
           test "$(stat -c '%a %U %G' /var/log/stead)" = '2750 root stead-audit'
           for service in interactive network batch service; do test -s /etc/pam.d/stead-$service; done
           stead policy check
           systemctl is-enabled stead.socket stead.service
           systemctl is-active stead.socket stead.service"#,
    ),
    (
        "the service is started by a connection, and says when it is ready",
        r#"systemctl stop stead.service
           test "$(as_alice -- id -un)" = alice
           systemctl is-active stead.service
           test "$(systemctl show -p Type --value stead)" = notify
           test "$(systemctl show -p WatchdogUSec --value stead)" = 1min"#,
    ),
    (
        "a process is in a group of its own below the unit's",
        r#"stead run --as alice --s4u --logon batch -- cat /proc/self/cgroup | grep -x '0::/system.slice/stead.service/clients/[0-9a-f]*'
           as_alice -- cat /proc/self/cgroup | grep -x '0::/system.slice/stead.service/clients/[0-9a-f]*'
           grep -x 0::/system.slice/stead.service/service /proc/$(systemctl show -p MainPID --value stead)/cgroup
           test -z "$(ls -d /sys/fs/cgroup/system.slice/stead.service/clients/*/ 2>/dev/null)""#,
    ),
    (
        "a logon at a terminal is a session of logind, in a scope of its own",
        "stead run --as alice --s4u --logon interactive -- cat /proc/self/cgroup | grep -x '0::/user.slice/user-[0-9]*.slice/session-.*.scope'",
    ),
    ("nothing is missing", "stead doctor"),
    (
        "before Linux 6.5 a caller whom no rule names is told why the service has nothing for it",
        r#"if serves_herself; then skip "this is Linux $(uname -r)"; fi
           runuser -u alice -- stead run -- true 2>&1 | grep 'SO_PEERPIDFD (Linux 6.5)'
           stead doctor | grep 'only whom a rule names'"#,
    ),
    (
        "processes live on over a restart, and are known, daemons and all",
        r#"as_alice -- sh -c 'setsid -f sleep 1234; exec sleep 4321' > /dev/null &
           until daemon=$(pgrep -f '^sleep 1234'); do sleep 0.1; done
           process=$(pgrep -f '^sleep 4321')
           before=$(systemctl show -p MainPID --value stead)
           systemctl restart stead
           test "$before" != "$(systemctl show -p MainPID --value stead)"
           kill -0 $daemon $process
           stead ps | grep "$process "
           stead kill --tree $process
           until_gone $daemon
           until_gone $process"#,
    ),
    (
        "a reload takes a new policy",
        r#"printf '[[deny]]\nclients = { users = ["alice"] }\nprivileges = ["tcb"]\n' > /etc/stead/policy.d/try.toml
           systemctl reload stead
           fails stead run --as alice --s4u --logon batch -- true
           rm /etc/stead/policy.d/try.toml
           systemctl reload stead
           stead run --as alice --s4u --logon batch -- true"#,
    ),
    (
        "a service that hangs is started anew by the watchdog",
        r"mkdir -p /run/systemd/system/stead.service.d
           printf '[Service]\nWatchdogSec=5\n' > /run/systemd/system/stead.service.d/try.conf
           systemctl daemon-reload
           systemctl restart stead
           before=$(systemctl show -p MainPID --value stead)
           kill -STOP $before
           until after=$(systemctl show -p MainPID --value stead); test $after != $before -a $after != 0; do sleep 0.2; done
           stead run --as alice --s4u --logon batch -- true
           rm -r /run/systemd/system/stead.service.d
           systemctl daemon-reload
           systemctl restart stead",
    ),
    (
        "the log is rotated",
        r#"test "$(stat -c '%a %U %G' /var/log/stead/audit.jsonl)" = '640 root stead-audit'
           logrotate --force /etc/logrotate.d/stead
           stead run --as alice --s4u --logon batch -- true
           until grep -q process-end /var/log/stead/audit.jsonl; do sleep 0.1; done"#,
    ),
    (
        "an upgrade leaves processes and what was configured alone",
        r#"echo '# mine' >> /etc/stead/policy.toml
           as_alice -- sleep 4321 > /dev/null &
           until process=$(pgrep -f '^sleep 4321'); do sleep 0.1; done
           before=$(systemctl show -p MainPID --value stead)
           dpkg --force-confold -i /stead.deb
           tail -n 1 /etc/stead/policy.toml | grep '# mine'
           test "$before" != "$(systemctl show -p MainPID --value stead)"
           stead ps | grep "$process "
           stead kill $process"#,
    ),
    (
        "a removed package leaves its configuration and its counter of logon gids",
        r"stead run --as alice --s4u --logon batch -- true
           dpkg -r stead
           fails systemctl is-active stead.socket
           fails systemctl is-active stead.service
           test -e /etc/stead/policy.toml -a -d /var/lib/stead -a ! -e /usr/bin/stead",
    ),
    (
        "a purged one leaves the counter and the audit log, and can be installed again",
        r"dpkg --purge stead
           test ! -e /etc/stead/policy.toml -a ! -e /etc/pam.d/stead-batch -a -d /var/lib/stead -a -d /var/log/stead
           dpkg -i /stead.deb
           stead run --as alice --s4u --logon batch -- true
           dpkg --purge stead",
    ),
];
