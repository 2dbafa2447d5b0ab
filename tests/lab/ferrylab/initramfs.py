# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs of a host: busybox, a few modules, and /init, which lays stage over tree under a
tmpfs (or a disk that keeps what is written) and hands over to systemd. What differs between hosts
is a second archive behind it."""

import lzma
import pathlib

from .cpio import Archive

_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "9pnet_virtio", "9p",
            "crc32c_generic", "ext4", "overlay")
# Newer kernels have these in their core.
_MAY_BE_GONE = ("crc32c_generic",)

_INIT = r"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tree /stage /ov /new
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
for module in $(cat /modules/order); do insmod /modules/$module || echo "ferry-lab: $module failed"; done
. /lab.env
attach() {
    for disk in /sys/block/vd*; do
        [ "$(cat $disk/serial)" = "lab-$1" ] && mount -t ext4 -o ro /dev/${disk##*/} /$1 && return
    done
    echo "ferry-lab: no disk lab-$1"
}
attach tree
attach stage
lower=/stage:/tree
[ -z "$LAB_KERNEL" ] || { mkdir /kernel; attach kernel; lower=/stage:/kernel:/tree; }
if [ -z "$LAB_DURABLE" ]; then
    mount -t tmpfs -o size=75%,mode=0755 ov /ov
else
    for disk in /sys/block/vd*; do
        [ "$(cat $disk/serial)" = upper ] && mount -t ext4 /dev/${disk##*/} /ov
    done
fi
[ -e /ov/upper ] || { mkdir /ov/upper /ov/work; cp -a /layer/. /ov/upper/; }
mount -t overlay -o lowerdir=$lower,upperdir=/ov/upper,workdir=/ov/work host /new ||
    { echo "ferry-lab: no root; this shell is all there is"; exec sh; }
mount -t 9p -o rw,cache=none,version=9p2000.L,trans=virtio,msize=262144 exchange /new/exchange
ip link set lo up
for net in /sys/class/net/*; do
    case $(cat $net/address) in
    $LAB_USER_MAC) ip link set ${net##*/} up; ip addr add 10.0.2.15/24 dev ${net##*/}
                   ip route add default via 10.0.2.2 ;;
    $LAB_LINK_MAC) ip link set ${net##*/} up; ip addr add $LAB_LINK_ADDRESS/24 dev ${net##*/} ;;
    esac
done
echo "ferry-lab: initramfs done"
umount /proc /sys
mount --move /dev /new/dev
exec switch_root /new /sbin/init
"""


def build(tree: pathlib.Path, modules: pathlib.Path) -> bytes:
    """`modules`: the kernel's directory of modules."""
    archive = Archive()
    archive.device("dev/console", 5, 1)
    archive.file("init", _INIT, 0o755)
    archive.file("bin/busybox", (tree / "bin/busybox").read_bytes(), 0o755)
    order = add_modules(archive, modules, _MODULES)
    archive.file("modules/order", "\n".join(order) + "\n")
    return archive.bytes()


def add_modules(archive: Archive, base: pathlib.Path, names) -> list[str]:
    """Puts modules of the kernel whose directory is `base`, and what they need, into /modules. Returns the files' names
    in the order to load them in."""
    order = _load_order(base, names)
    for module in order:
        content = (base / module).read_bytes()
        if module.endswith(".xz"):
            content = lzma.decompress(content)
        archive.file("modules/" + _plain(module), content)
    return [_plain(module) for module in order]


def _plain(module: str) -> str:
    return pathlib.PurePath(module).name.removesuffix(".xz")


def _load_order(base: pathlib.Path, names) -> list[str]:
    """Module files in an order in which each finds what it needs. Built-in ones are left out."""
    needs = {}
    for line in (base / "modules.dep").read_text().splitlines():
        module, _, rest = line.partition(":")
        needs[module] = rest.split()
    by_name = {_plain(m).removesuffix(".ko").replace("-", "_"): m for m in needs}
    builtin = {_plain(line).removesuffix(".ko").replace("-", "_")
               for line in (base / "modules.builtin").read_text().splitlines()}
    order: list[str] = []

    def add(module: str) -> None:
        for needed in needs[module]:
            add(needed)
        if module not in order:
            order.append(module)

    for name in names:
        if name in by_name:
            add(by_name[name])
        elif name not in builtin and name not in _MAY_BE_GONE:
            raise ValueError(f"{base} has no module {name}")
    return order
