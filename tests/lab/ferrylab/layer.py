# SPDX-License-Identifier: GPL-2.0-or-later
"""What is particular to one host of one lab run: names, keys, units. It is an archive behind the
initramfs that /init copies into the host's tmpfs layer."""

import pathlib

from .cpio import Archive
from .identity import Identity

# Parts of a usual boot that cost seconds under emulation and give nothing to these hosts. What
# they would have prepared and is needed, _SETUP does.
MASKED = """
    kmod-static-nodes.service systemd-binfmt.service systemd-modules-load.service
    systemd-sysctl.service systemd-sysusers.service systemd-tmpfiles-setup-dev.service
    systemd-tmpfiles-setup.service systemd-tmpfiles-clean.timer systemd-update-utmp.service
    systemd-random-seed.service systemd-pstore.service systemd-journal-flush.service
    systemd-machine-id-commit.service systemd-firstboot.service systemd-repart.service
    systemd-remount-fs.service systemd-pcrphase.service systemd-pcrphase-sysinit.service
    systemd-ask-password-console.path systemd-ask-password-wall.path systemd-journald-audit.socket
    systemd-initctl.socket proc-sys-fs-binfmt_misc.automount dev-mqueue.mount dev-hugepages.mount
    sys-fs-fuse-connections.mount sys-kernel-config.mount modprobe@configfs.service
    modprobe@fuse.service cryptsetup.target integritysetup.target veritysetup.target
    lvm2-monitor.service lvm2-lvmpolld.socket dm-event.socket blk-availability.service
    dbus.socket dbus.service systemd-logind.service systemd-machined.service
    virtlogd-admin.socket virtlockd-admin.socket libvirtd-admin.socket
""".split()

_SETUP = r"""#!/bin/sh
# Hypervisor, device-mapper and the filter under test.
mkdir -p /run/lock/lvm /run/lvm
modprobe kvm_amd 2>/dev/null || modprobe kvm_intel || echo "ferry-lab: no KVM in this host" >/dev/console
modprobe -a dm-mod tun
module=/usr/lib/modules/$(uname -r)/updates/dm-ferry.ko
[ ! -e $module ] || insmod $module || echo "ferry-lab: dm-ferry.ko does not load" >/dev/console
"""

_VOLUMES = r"""#!/bin/sh
# The volume group of this host; made at the first boot, found at the next.
disk=/dev/disk/by-id/virtio-pv
if vgs vg >/dev/null 2>&1; then vgchange -ay vg; else vgcreate -q vg $disk; fi ||
    echo "ferry-lab: no volume group" >/dev/console
"""

_READY = r"""#!/bin/sh
read -r up rest </proc/uptime
echo "ferry-lab: ready after $up s" >/dev/console
"""

_UNITS = {
    "lab.target": """[Unit]
Requires=basic.target
After=basic.target
AllowIsolate=yes
""",
    "lab-setup.service": """[Unit]
DefaultDependencies=no
After=systemd-udevd.service
Before=libvirtd.service lab-volumes.service ferry-bar.service ferryd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/ferry-lab/setup
""",
    "lab-volumes.service": r"""[Unit]
Wants=dev-disk-by\x2did-virtio\x2dpv.device
After=dev-disk-by\x2did-virtio\x2dpv.device
Before=ferry-bar.service ferryd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/ferry-lab/volumes
""",
    "lab-ready.service": """[Unit]
Requires=ssh.service
After=ssh.service libvirtd.service lab-setup.service lab-volumes.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/ferry-lab/ready
""",
    # For the case that ssh does not answer: a root shell on the second serial line.
    "lab-shell.service": """[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sh
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
Restart=always
RestartSec=1
KillMode=process
""",
}
_DROP_INS = {
    "ssh.service": "[Service]\nExecStartPre=\n",
    "systemd-udev-trigger.service":
        "[Service]\nExecStart=\nExecStart=-/bin/udevadm trigger --type=devices --action=add "
        "--subsystem-match=block --subsystem-match=misc\n",
}
_WANTED = ("lab-setup.service", "lab-volumes.service", "lab-ready.service", "lab-shell.service",
           "libvirtd.service", "ssh.service")

_CONFIG = {
    "etc/ssh/sshd_config.d/lab.conf": "PermitRootLogin yes\nUsePAM no\nUseDNS no\nMaxSessions 200\n"
                                      "MaxStartups 100\nHostKey /etc/ssh/ssh_host_ed25519_key\n",
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=volatile\nRateLimitBurst=0\n",
    "etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStartSec=180s\n"
                                          "DefaultTimeoutStopSec=10s\n",
    "etc/lvm/lvmlocal.conf": "global { event_activation = 0 use_lvmpolld = 0 }\n"
                             "activation { monitoring = 0 }\n"
                             "backup { backup = 0 archive = 0 }\n"
                             # Guests' own labels inside volumes are none of the host's business.
                             'devices { use_devicesfile = 0 '
                             'global_filter = [ "a|^/dev/vd|", "r|.*|" ] }\n',
    "etc/libvirt/qemu.conf": 'user = "root"\ngroup = "root"\ndynamic_ownership = 0\n'
                             'remember_owner = 0\nsecurity_driver = "none"\nnamespaces = []\n'
                             'cgroup_controllers = []\nstdio_handler = "file"\n',
    "etc/libvirt/libvirtd.conf": 'auth_unix_ro = "none"\nauth_unix_rw = "none"\n',
    "etc/default/libvirtd": 'LIBVIRTD_ARGS=""\n',
    "etc/fstab": "",
    "etc/machine-info": "",
}


def build(host: str, hosts: dict[str, str], identity: Identity, tree: pathlib.Path,
          stage: pathlib.Path, env: dict[str, str], capabilities: dict[str, bytes]) -> bytes:
    """`hosts`: name -> address on the link. `env` is for /init. `capabilities`: libvirt's cache."""
    archive = Archive()
    archive.file("lab.env", "".join(f"{name}={value}\n" for name, value in env.items()))
    archive.directory("layer/exchange")
    archive.directory("layer/root", 0o700)
    archive.directory("layer/root/.ssh", 0o700)

    def put(path: str, content: str | bytes, mode: int = 0o644) -> None:
        archive.file("layer/" + path, content, mode)

    put("etc/hostname", host + "\n")
    put("etc/machine-id", identity.machine_id(host) + "\n")
    put("etc/hosts", "127.0.0.1 localhost\n"
        + "".join(f"{address} {name} host{name}\n" for name, address in hosts.items()))
    put("etc/ssh/ssh_host_ed25519_key", identity.host_key, 0o600)
    put("root/.ssh/authorized_keys", identity.user_key_public, 0o600)
    put("root/.ssh/id_ed25519", identity.user_key, 0o600)
    put("root/.ssh/known_hosts", "".join(
        f"{name},host{name},{address} {identity.host_key_public}" for name, address in hosts.items()))
    for name, content in identity.pki(host).items():
        put("etc/ferry/pki/" + name, content, 0o600)
    for path, content in _CONFIG.items():
        put(path, content)
    if not (stage / "etc/ferry/ferry.conf").exists():
        put("etc/ferry/ferry.conf", "")
    for name, script in (("setup", _SETUP), ("volumes", _VOLUMES), ("ready", _READY)):
        put("usr/lib/ferry-lab/" + name, script, 0o755)
    for name, content in capabilities.items():
        put("var/cache/libvirt/qemu/capabilities/" + name, content, 0o600)
    _units(archive, tree, stage)
    return archive.bytes()


def _units(archive: Archive, tree: pathlib.Path, stage: pathlib.Path) -> None:
    system = "layer/etc/systemd/system/"
    for unit, content in _UNITS.items():
        archive.file(system + unit, content)
    for unit in MASKED:
        archive.symlink(system + unit, "/dev/null")
    for unit, content in _DROP_INS.items():
        archive.file(f"{system}{unit}.d/lab.conf", content)
    for generator in (tree / "usr/lib/systemd/system-generators").iterdir():
        archive.symlink(f"layer/etc/systemd/system-generators/{generator.name}", "/dev/null")
    wanted = list(_WANTED)
    if (stage / "usr/lib/systemd/system/ferryd.service").exists():
        wanted.append("ferryd.service")
    if (stage / "usr/lib/systemd/system/ferry-bar.service").exists():
        # As `systemctl enable ferryd` does it.
        archive.symlink(f"{system}libvirtd.service.requires/ferry-bar.service",
                        "/usr/lib/systemd/system/ferry-bar.service")
    for unit in wanted:
        home = "/etc" if unit in _UNITS else "/usr/lib"
        archive.symlink(f"{system}lab.target.wants/{unit}", f"{home}/systemd/system/{unit}")
