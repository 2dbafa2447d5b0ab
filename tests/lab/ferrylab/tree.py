# SPDX-License-Identifier: GPL-2.0-or-later
"""The cached Debian tree that both hosts boot from, and the kernel headers beside it.

Layout: <cache>/lab-<hash of the recipe>/{tree/, tree.img, headers/<kver>, info.json}. The
directory is built under a temporary name and renamed, so a name that exists is whole. Hosts read
the image: over 9p every look at a file costs a round trip, and systemd looks at thousands.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from .paths import LabError, cache_dir

SUITE = "bookworm"
# Raise when the code below makes a different tree from the same lists.
FORMAT = 4

# Short kernel name -> what its meta package carries between "linux-image" and "amd64".
KERNELS = {"6.1": "", "6.12": "-6.12"}

PACKAGES = """
    systemd systemd-sysv udev dbus kmod procps iproute2 openssh-server openssl busybox-static
    libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients
    qemu-system-x86 seabios ipxe-qemu netcat-openbsd
    lvm2 dmsetup e2fsprogs fio strace
    libnl-genl-3-200 libnl-3-200 libboost-program-options1.74.0 liburing2 libssl3 libzstd1
    liblz4-1 libxxhash0 libspdlog1.10 libfmt9 libdevmapper1.02.1 libdevmapper-event1.02.1
    libblkid1 libsystemd0 libvirt0 libxml2 libcpp-httplib0.11 libbrotli1
""".split()

# Nothing of these is of use in a host that lives for minutes.
EXCLUDES = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*",
            "/usr/share/lintian/*", "/usr/share/bash-completion/*")

def recipe_hash() -> str:
    recipe = [FORMAT, SUITE, KERNELS, PACKAGES, EXCLUDES]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]


def home() -> pathlib.Path:
    return cache_dir() / f"lab-{recipe_hash()}"


def ensure(refresh: bool = False, log=lambda text: print(text, file=sys.stderr)) -> dict:
    """Returns the description of the tree, building it when it is missing (about 90 s)."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    info_file = home() / "info.json"
    if info_file.exists() and not refresh:
        return json.loads(info_file.read_text())
    with open(cache_dir() / "lab-tree.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("lab: another process is making the host tree; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not info_file.exists() or refresh:
            _build(home(), log)
    return json.loads(info_file.read_text())


def _build(final: pathlib.Path, log) -> None:
    if os.geteuid() != 0:
        raise LabError("making the host tree needs root (mmdebstrap keeps the owners of files); "
                       "run `sudo tests/lab/lab tree` once")
    if not shutil.which("mmdebstrap"):
        raise LabError("mmdebstrap is not installed; run `make deps`")
    started = time.monotonic()
    for stale in final.parent.glob("lab-*.tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)
    work = final.parent / f"{final.name}.tmp-{os.getpid()}"
    (work / "debs").mkdir(parents=True)
    log(f"lab: making the host tree in {final} (Debian {SUITE}, about 90 s)")
    try:
        _mmdebstrap(work, work.parent / "lab-tree.log")
        kernels = _kernels(work)
        _finish_tree(work / "tree")
        make_image(work / "tree", work / "tree.img")
        info = {"home": str(final), "tree": str(final / "tree"),
                "image": str(final / "tree.img"), "kernels": {}}
        for short, kver in kernels.items():
            relocate_headers(work, final, kver)
            info["kernels"][short] = {
                "kver": kver,
                "vmlinuz": str(final / "tree" / "boot" / f"vmlinuz-{kver}"),
                "headers": str(final / "headers" / kver),
            }
        shutil.rmtree(work / "debs")
        (work / "info.json").write_text(json.dumps(info, indent=2) + "\n")
        if final.exists():
            old = final.with_name(f"{final.name}.tmp-old{os.getpid()}")
            final.rename(old)
            shutil.rmtree(old)
        work.rename(final)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    log(f"lab: host tree made in {time.monotonic() - started:.0f} s")


def make_image(directory: pathlib.Path, image: pathlib.Path) -> None:
    """Puts a directory into a read-only ext4 image (mke2fs can fill one without mounting it)."""
    files = size_kib = 0
    for parent, names, others in os.walk(directory):
        files += 1 + len(others)
        for name in others:
            size_kib += 4 + os.lstat(os.path.join(parent, name)).st_size // 1024
        size_kib += 4 + len(names) // 8
    size_kib = int(size_kib * 1.05) + files // 2 + 8192
    done = subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0",
                           "-O", "^has_journal,^resize_inode,^metadata_csum", "-E",
                           "root_owner=0:0,lazy_itable_init=0", "-N", str(files + files // 10 + 64),
                           "-d", directory, image, f"{size_kib}k"],
                          capture_output=True, text=True,
                          env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    if done.returncode != 0:
        raise LabError(f"mke2fs could not make {image}: {done.stderr.strip()}")


def make_empty_image(image: pathlib.Path, size_bytes: int) -> None:
    """A writable ext4 image, sparse."""
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", image, f"{size_bytes >> 10}k"], check=True,
                   capture_output=True, env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})


def sources() -> list[str]:
    """The machine's own Debian sources as one-line entries; empty when it has none that fit."""
    fields = "$(ORIGIN)|$(CODENAME)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)"
    shown = subprocess.run(["apt-get", "indextargets", "--format", fields, "Identifier: Packages"],
                           capture_output=True, text=True)
    if shown.returncode != 0:
        return []
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    signed = f"[signed-by={key}] " if os.path.exists(key) else ""
    wanted = (SUITE, f"{SUITE}-updates", f"{SUITE}-security")
    lines = []
    for line in shown.stdout.splitlines():
        origin, codename, release, component, uri = line.split("|")
        if origin != "Debian" or codename not in wanted or component != "main":
            continue
        entry = f"deb {signed}{uri} {release} {component}"
        if entry not in lines:
            lines.append(entry)
    complete = any(f" {SUITE} main" in entry for entry in lines)
    return lines if complete else []


def _mmdebstrap(work: pathlib.Path, log_path: pathlib.Path) -> None:
    # Kernels and headers are only unpacked: their package scripts would make boot images that
    # nobody uses, and the headers' dependencies would pull a compiler into the hosts.
    metas = " ".join(f"linux-image{infix}-amd64 linux-headers{infix}-amd64"
                     for infix in KERNELS.values())
    fetch = f"""set -e
cd "{work}/debs"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \\
    --no-replaces --no-enhances {metas} | grep -E \\
    '^linux-((image|headers)-[0-9]+\\.[0-9]+\\.[0-9]+.*-(amd64|common)|kbuild-.*)$' \\
    | sort -u)
apt-get -o APT::Sandbox::User=root download $names
"""
    hook = work / "fetch-kernels"
    hook.write_text("#!/bin/sh\n" + fetch)
    hook.chmod(0o755)
    argv = ["mmdebstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES),
            "--aptopt=Apt::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\""]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDES]
    argv += [f"--customize-hook={hook}", SUITE, str(work / "tree")]
    entries = sources()
    with open(log_path, "w") as log:
        done = subprocess.run(argv + (["-"] if entries else []), text=True, stdout=log,
                              stderr=subprocess.STDOUT, input="\n".join(entries) + "\n")
    hook.unlink()
    if done.returncode != 0:
        tail = log_path.read_text(errors="replace").splitlines()[-12:]
        raise LabError(f"mmdebstrap failed ({log_path}); last lines:\n  " + "\n  ".join(tail))


def _kernels(work: pathlib.Path) -> dict[str, str]:
    """Unpacks kernels into the tree and headers beside it; returns short name -> full version."""
    found = {}
    for deb in sorted((work / "debs").glob("*.deb")):
        name = deb.name.split("_")[0]
        where = work / "headers"
        if name.startswith("linux-image-"):
            where = work / "kernels"
            kver = name.removeprefix("linux-image-")
            found[max((k for k in KERNELS if kver.startswith(k + ".")), key=len)] = kver
        subprocess.run(["dpkg-deb", "-x", deb, where], check=True)
    if set(found) != set(KERNELS):
        raise LabError(f"apt offers the kernels {sorted(found)}, wanted {sorted(KERNELS)}; "
                       f"are the security sources of {SUITE} enabled?")
    for part in ("boot", "lib/modules"):
        target = work / "tree" / ("usr/" + part if part.startswith("lib") else part)
        target.mkdir(exist_ok=True)
        for item in (work / "kernels" / part).iterdir():
            shutil.move(item, target / item.name)
    shutil.rmtree(work / "kernels")
    for kver in found.values():
        subprocess.run(["chroot", work / "tree", "depmod", kver], check=True)
    return found


def relocate_headers(work: pathlib.Path, final: pathlib.Path, kver: str) -> None:
    """Makes `make -C headers/<kver> M=…` work where nothing lies under /usr/src."""
    headers = work / "headers"
    makefile = headers / "usr/src" / f"linux-headers-{kver}" / "Makefile"
    text = makefile.read_text()
    makefile.write_text(text.replace("/usr/src/", f"{final}/headers/usr/src/"))
    (headers / kver).symlink_to(f"usr/src/linux-headers-{kver}")


def _finish_tree(tree: pathlib.Path) -> None:
    for unwanted in ("etc/libvirt/qemu/networks/autostart/default.xml", "etc/machine-id",
                     "etc/resolv.conf", "etc/hostname"):
        (tree / unwanted).unlink(missing_ok=True)
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    subprocess.run(["chroot", tree, "passwd", "-d", "root"], check=True, capture_output=True)
