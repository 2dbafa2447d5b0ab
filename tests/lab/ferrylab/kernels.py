# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels besides the two that the hosts' tree carries: older and newer ones of Debian, and debug kernels built
from Debian's source. Each is made when it is first asked for.

Layout: <cache>/kernel-<name>-<hash of the recipe>/{vmlinuz, modules/, modules.img, headers/, chroot/, info.json}. As
with the tree, the directory gets its name when it is whole. `modules.img` holds usr/lib/modules and is laid between
the tree and the stage at boot. A kernel whose build tools want a newer libc has a `chroot` to build modules in.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

from . import tree
from .paths import LAB_DIR, LabError, cache_dir

# Raise when the code below makes something different from the same recipe.
FORMAT = 1
CONFIGS = LAB_DIR / "kernels"


@dataclasses.dataclass(frozen=True)
class Recipe:
    suites: tuple[str, ...]             # where it comes from; the last one has the kernel
    package: str                        # meta package without "linux-image"/"linux-headers", or the source package
    configs: tuple[str, ...] = ()       # fragments in tests/lab/kernels: it is built from source
    chroot: tuple[str, ...] = ()        # its build tools do not run here: packages to build modules with there


RECIPES = {
    "5.10": Recipe(("bullseye-security",), "amd64"),
    "7": Recipe(("trixie", "trixie-backports"), "amd64", chroot=("make", "binutils")),
    "kasan": Recipe(("bookworm", "bookworm-security"), "linux-source-6.1", ("base", "kasan")),
    "kcsan": Recipe(("bookworm", "bookworm-security"), "linux-source-6.1", ("base", "kcsan")),
}


# Made from source to find mistakes; they cannot run guests.
DEBUG = tuple(name for name, recipe in RECIPES.items() if recipe.configs)


def names() -> list[str]:
    return list(tree.KERNELS) + list(RECIPES)


def ensure(name: str, log) -> dict:
    """Describes a kernel: kver, vmlinuz, modules (directory), headers, and for those made here image (of the modules)
    and chroot (or None; headers are a path in there then). Makes it when it is missing: Debian's in a minute or two,
    debug kernels in ten."""
    if name in tree.KERNELS:
        info = tree.ensure(log=log)
        known = info["kernels"][name]
        return known | {"modules": f"{info['tree']}/usr/lib/modules/{known['kver']}", "image": None, "chroot": None}
    if name not in RECIPES:
        raise LabError(f"no kernel {name}; there are {', '.join(names())}")
    final = _home(name)
    info_file = final / "info.json"
    cache_dir().mkdir(parents=True, exist_ok=True)
    with open(cache_dir() / f"kernel-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not info_file.exists():
            _make(name, final, log)
    return json.loads(info_file.read_text())


def _home(name: str) -> pathlib.Path:
    recipe = RECIPES[name]
    parts = [str(FORMAT), repr(recipe)] + [_fragment(one).read_text() for one in recipe.configs]
    return cache_dir() / f"kernel-{name}-{hashlib.sha256(''.join(parts).encode()).hexdigest()[:12]}"


def _fragment(name: str) -> pathlib.Path:
    return CONFIGS / f"{name}.config"


def _make(name: str, final: pathlib.Path, log) -> None:
    if os.geteuid() != 0:
        raise LabError(f"making the kernel {name} needs root (the owners of files are kept)")
    recipe, began = RECIPES[name], time.monotonic()
    for stale in final.parent.glob(f"kernel-{name}-*.tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)
    # Headers refer to themselves by absolute paths, so what is built in there keeps the name.
    work = final.with_name(f"{final.name}.tmp-{os.getpid()}")
    work.mkdir()
    log(f"lab: making the kernel {name} in {final} (log: {work}.log)")
    try:
        with open(f"{work}.log", "w") as output:
            make = _build_from_source if recipe.configs else _take_from_debian
            info = make(recipe, work, final, output)
        (work / "info.json").write_text(json.dumps(info, indent=2) + "\n")
        if final.exists():
            shutil.rmtree(final)
        work.rename(final)
        pathlib.Path(f"{work}.log").unlink()
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    log(f"lab: kernel {name} ({info['kver']}) made in {time.monotonic() - began:.0f} s")


def _describe(final: pathlib.Path, kver: str) -> dict:
    return {"kver": kver, "vmlinuz": str(final / "vmlinuz"), "modules": str(final / "modules"),
            "image": str(final / "modules.img"), "chroot": None}


def _run(argv, output, **options) -> None:
    done = subprocess.run([str(word) for word in argv], stdout=output, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        output.flush()
        tail = pathlib.Path(output.name).read_text(errors="replace").splitlines()[-12:]
        raise LabError(f"`{' '.join(str(word) for word in argv[:4])} …` failed ({output.name}); last lines:\n  "
                       + "\n  ".join(tail))


# --- from the archive ---


def _entries(suites: tuple[str, ...]) -> list[str]:
    """Source lines for suites that this machine need not know, on the mirrors that it uses."""
    known = tree.sources()
    plain = next((line for line in known if "security" not in line), "deb http://deb.debian.org/debian x main")
    secure = next((line for line in known if "security" in line), "deb http://deb.debian.org/debian-security x main")
    lines = []
    for suite in suites:
        words = (secure if suite.endswith("-security") else plain).split()
        words[-2] = suite
        lines.append(" ".join(words))
    return lines


def _download(recipe: Recipe, work: pathlib.Path, wanted, output) -> list[pathlib.Path]:
    """Fetches packages with an apt of their own: `wanted(ask)` names them, `ask` runs apt-cache."""
    apt, debs = work / "apt", work / "debs"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True)
    debs.mkdir()
    (apt / "state/status").touch()
    (apt / "sources.list").write_text("\n".join(_entries(recipe.suites)) + "\n")
    options = ["-o", f"Dir::State={apt}/state", "-o", f"Dir::State::status={apt}/state/status",
               "-o", f"Dir::Cache={apt}/cache", "-o", f"Dir::Etc::sourcelist={apt}/sources.list",
               "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none",
               "-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64"]
    _run(["apt-get", *options, "update", "-q"], output)

    def ask(*words: str) -> str:
        return subprocess.run(["apt-cache", *options, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    _run(["apt-get", *options, "download", "-q", "-t", recipe.suites[-1], *wanted(ask)], output, cwd=debs)
    return sorted(debs.glob("*.deb"))


_PARTS = re.compile(r"linux-(image-\d+\.[^ ]*-amd64|headers-\d+\.[^ ]*-(amd64|common)|kbuild-[^ ]*|base-[^ ]*"
                    r"|modules-[^ ]*|binary-[^ ]*)$")


def _take_from_debian(recipe: Recipe, work: pathlib.Path, final: pathlib.Path, output) -> dict:
    def wanted(ask) -> list[str]:
        shown = ask("depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks",
                    "--no-replaces", "--no-enhances", f"linux-image-{recipe.package}/{recipe.suites[-1]}",
                    f"linux-headers-{recipe.package}/{recipe.suites[-1]}")
        return sorted({line.strip() for line in shown.splitlines() if _PARTS.match(line.strip())})

    for deb in _download(recipe, work, wanted, output):
        where = "headers" if re.match(r"linux-(headers|kbuild)-", deb.name) else "image"
        _run(["dpkg-deb", "-x", deb, work / where], output)
    image = work / "image"
    modules = next(place for place in (image / "usr/lib/modules", image / "lib/modules") if place.exists())
    kver = next(modules.iterdir()).name
    # Newer packages keep the kernel beside its modules.
    vmlinuz = next(file for file in (image / "boot" / f"vmlinuz-{kver}", modules / kver / "vmlinuz") if file.exists())
    shutil.copy(vmlinuz, work / "vmlinuz")
    _modules_image(modules / kver, kver, work, output)
    info = _describe(final, kver)
    if recipe.chroot:
        _make_chroot(recipe, work, kver, output)
        info["chroot"], info["headers"] = str(final / "chroot"), f"/usr/src/linux-headers-{kver}"
    else:
        tree.relocate_headers(work, final, kver)
        info["headers"] = str(final / "headers" / kver)
    for part in ("image", "debs", "apt"):
        shutil.rmtree(work / part)
    return info


def _make_chroot(recipe: Recipe, work: pathlib.Path, kver: str, output) -> None:
    """A small system of the kernel's own release, with its compiler, to build modules in."""
    shutil.rmtree(work / "headers")
    script = work / "chroot-sources"
    script.write_text("\n".join(_entries(recipe.suites)) + "\n")
    with open(script) as sources:
        done = subprocess.run(["mmdebstrap", "--variant=minbase", f"--include={','.join(recipe.chroot)},linux-headers-{kver}",
                               '--aptopt=Apt::Install-Recommends "false"', "--aptopt=Acquire::Languages \"none\"",
                               *(f"--dpkgopt=path-exclude={pattern}" for pattern in tree.EXCLUDES),
                               recipe.suites[0], work / "chroot", "-"],
                              stdin=sources, stdout=output, stderr=subprocess.STDOUT)
    script.unlink()
    if done.returncode != 0:
        raise LabError(f"mmdebstrap failed; see {output.name}")


def _modules_image(modules: pathlib.Path, kver: str, work: pathlib.Path, output) -> None:
    root = work / "modules-root"
    target = root / "usr/lib/modules" / kver
    target.parent.mkdir(parents=True)
    shutil.move(modules, target)
    for link in ("build", "source"):
        (target / link).unlink(missing_ok=True)
    # depmod looks for lib/modules below its base.
    (root / "lib").symlink_to("usr/lib")
    _run(["depmod", "-b", root, kver], output, env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    (root / "lib").unlink()
    # The initramfs takes its modules from here, the host mounts the image.
    shutil.copytree(target, work / "modules", symlinks=True)
    tree.make_image(root, work / "modules.img")
    shutil.rmtree(root)


# --- from source ---


def _unpack_source(recipe: Recipe, work: pathlib.Path, target: pathlib.Path, parts, output) -> None:
    """Fetches Debian's source of the kernel into `work` and unpacks `parts` of it, or all, into `target`."""
    deb = _download(recipe, work, lambda _ask: [recipe.package], output)[0]
    _run(["dpkg-deb", "-x", deb, work / "deb"], output)
    archive = next((work / "deb/usr/src").glob("linux-source-*.tar.xz"))
    target.mkdir(exist_ok=True)
    _run(["tar", "-C", target, "--strip-components=1", "-xf", archive, "--wildcards",
          *(f"linux-source-*/{part}" for part in parts)], output)
    for part in ("deb", "debs", "apt"):
        shutil.rmtree(work / part)


def _build_from_source(recipe: Recipe, work: pathlib.Path, final: pathlib.Path, output) -> dict:
    source, build = work / "source", work / "build"
    build.mkdir()
    _unpack_source(recipe, work, source, (), output)
    make = ["make", "-C", source, f"O={build}", f"-j{os.cpu_count()}", "-s"]
    _run([*make, "tinyconfig"], output)
    _configure(recipe, source, build, make, output)
    _run([*make, "bzImage", "modules"], output)
    kver = subprocess.run([*make, "kernelrelease"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    shutil.copy(build / "arch/x86/boot/bzImage", work / "vmlinuz")
    _run([*make, "modules_install", f"INSTALL_MOD_PATH={work}/installed"], output)
    _modules_image(work / "installed/lib/modules" / kver, kver, work, output)
    shutil.rmtree(work / "installed")
    headers = _keep_headers(source, build, work, final)
    return _describe(final, kver) | {"headers": headers}


def _configure(recipe: Recipe, source, build, make, output) -> None:
    """Lays the fragments over a minimal configuration, and insists on every line of them."""
    fragments = [_fragment(name) for name in recipe.configs]
    _run([source / "scripts/kconfig/merge_config.sh", "-m", "-O", build, build / ".config", *fragments], output,
         cwd=build)
    _run([*make, "olddefconfig"], output)
    got = set((build / ".config").read_text().splitlines())
    wanted = [line for one in fragments for line in one.read_text().splitlines() if line.startswith("CONFIG_")]
    lost = [line for line in wanted if line not in got]
    if lost:
        raise LabError(f"the kernel's configuration did not keep: {', '.join(lost)}")


def _keep_headers(source, build, work, final) -> str:
    """Neither objects nor most of the source are needed to build a module, and they are most of the size."""
    for pattern in ("*.o", "*.a", "*.cmd", "vmlinux*", "*.mod.c"):
        for file in build.rglob(pattern):
            if "scripts" not in file.parts and "tools" not in file.parts:
                file.unlink()
    for part in ("Documentation", "LICENSES", "drivers", "fs", "net", "samples", "sound"):
        shutil.rmtree(source / part)
    for arch in (source / "arch").iterdir():
        if arch.is_dir() and arch.name != "x86":
            shutil.rmtree(arch)
    # The build's makefile names its source by an absolute path.
    makefile = build / "Makefile"
    makefile.write_text(makefile.read_text().replace(str(work), str(final)))
    link = build / "source"
    link.unlink(missing_ok=True)
    link.symlink_to(final / source.name)
    return str(final / build.name)


# --- checkers ---

_CHECKERS = ("scripts/checkpatch.pl", "scripts/spelling.txt", "scripts/const_structs.checkpatch",
             "scripts/coccinelle")


def checkers(log) -> pathlib.Path:
    """The directory `scripts` of the kernel's source with checkpatch and the coccinelle rules; Debian packs them
    nowhere else. Fetched when missing (140 MB, half a minute)."""
    recipe = RECIPES["kasan"]
    final = cache_dir() / ("kernel-checkers-"
                           + hashlib.sha256(repr((FORMAT, recipe.package, _CHECKERS)).encode()).hexdigest()[:12])
    cache_dir().mkdir(parents=True, exist_ok=True)
    with open(cache_dir() / "kernel-checkers.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.exists():
            return final / "scripts"
        log(f"lab: fetching checkpatch and the coccinelle rules into {final}")
        work = final.with_name(f"{final.name}.tmp-{os.getpid()}")
        work.mkdir()
        try:
            with open(work / "log", "w") as output:
                _unpack_source(recipe, work, work, _CHECKERS, output)
            work.rename(final)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return final / "scripts"
