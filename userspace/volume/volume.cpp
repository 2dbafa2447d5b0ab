// SPDX-License-Identifier: GPL-2.0-or-later
#include "volume/volume.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/process.h"
#include "volume/identity.h"

namespace ferry::volume {
namespace {

struct ProbeDeleter {
  void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
};
using Probe = std::unique_ptr<std::remove_pointer_t<blkid_probe>, ProbeDeleter>;

std::string sysfs_of(dev_t device) {
  return "/sys/dev/block/" + std::to_string(major(device)) + ':' + std::to_string(minor(device));
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

bool starts_with_lvm(const std::string& uuid) { return uuid.rfind("LVM-", 0) == 0; }

bool has_swap_signature(int fd) {
  Probe probe(blkid_new_probe());
  if (!probe || blkid_probe_set_device(probe.get(), fd, 0, 0) != 0) return false;
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE);
  const char* type = nullptr;
  return blkid_do_safeprobe(probe.get()) == 0 &&
         blkid_probe_lookup_value(probe.get(), "TYPE", &type, nullptr) == 0 && type &&
         std::strcmp(type, "swap") == 0;
}

// QEMU opens a disk without claiming it; of a device-mapper volume the open count tells. To be
// asked before this process opens the volume itself.
bool has_openers(const std::string& dm_name) {
  auto output = run_process({"dmsetup", "info", "-c", "--noheadings", "-o", "open", dm_name},
                            {.timeout_ms = 30'000});
  return output.ok() && output->exit_status == 0 && std::atoi(output->out.c_str()) > 0;
}

// Another device on top (dm, md, a mapped loop), a mount, or an exclusive opener.
bool is_claimed(const std::string& path, dev_t device) {
  std::error_code error;
  auto holders = std::filesystem::directory_iterator(sysfs_of(device) + "/holders", error);
  if (!error && holders != std::filesystem::directory_iterator()) return true;
  Fd exclusive(::open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK));
  return !exclusive.valid() && errno == EBUSY;
}

// LVM's own view when its tools answer; the dm name said the same without them.
void ask_lvm_for_names(VolumeInfo& info) {
  auto output = run_process({"lvs", "--reportformat", "json", "-o", "vg_name,lv_name", info.path},
                            {.timeout_ms = 30'000});
  if (output.ok() && output->exit_status == 0)
    if (auto names = parse_lvs(output->out); names.ok()) {
      info.vg = names->first;
      info.lv = names->second;
    }
}

void learn_kind(VolumeInfo& info, dev_t device) {
  info.dm_name = first_line(sysfs_of(device) + "/dm/name");
  if (info.dm_name.empty()) {
    std::error_code error;
    auto canonical = std::filesystem::canonical(info.path, error);
    if (!error) info.path = canonical;
    return;
  }
  info.path = "/dev/mapper/" + info.dm_name;
  info.kind = VolumeInfo::Kind::dm;
  if (!starts_with_lvm(first_line(sysfs_of(device) + "/dm/uuid"))) return;
  info.kind = VolumeInfo::Kind::lvm;
  split_lvm_name(info.dm_name, info.vg, info.lv);
  std::string pretty = "/dev/" + info.vg + '/' + info.lv;
  struct stat status {};
  if (::stat(pretty.c_str(), &status) == 0 && status.st_rdev == device) info.path = pretty;
}

}  // namespace

bool is_open(const VolumeInfo& volume) { return !volume.dm_name.empty() && has_openers(volume.dm_name); }

const char* role_name(Role role) {
  switch (role) {
    case Role::data: return "data";
    case Role::swap: return "swap";
    case Role::scratch: return "scratch";
  }
  return "data";
}

Result<Role> role_from_name(const std::string& name) {
  for (Role role : {Role::data, Role::swap, Role::scratch})
    if (name == role_name(role)) return role;
  return make_error(Errc::usage, "unknown role \"" + name + '"', 0,
                    "a role is one of data, swap, scratch");
}

Result<VolumeInfo> identify(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return sys_error("cannot find the volume " + path, errno);
  if (!S_ISBLK(status.st_mode))
    return make_error(Errc::unsupported, path + " is not a block device", 0,
                      "Ferry moves block volumes; put the disk on LVM");
  VolumeInfo info;
  info.path = path;
  learn_kind(info, status.st_rdev);
  info.id = identity_of(sysfs_of(status.st_rdev));
  info.device = status.st_rdev;
  return info;
}

Result<VolumeInfo> inspect(const std::string& path) {
  auto known = identify(path);
  if (!known.ok()) return known;
  VolumeInfo info = std::move(*known);
  if (info.kind == VolumeInfo::Kind::lvm) ask_lvm_for_names(info);
  info.in_use = is_open(info) || is_claimed(path, info.device);
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return sys_error("cannot open the volume " + path, errno);
  int block_size = 0;
  if (ioctl(fd.get(), BLKGETSIZE64, &info.size_bytes) != 0 ||
      ioctl(fd.get(), BLKSSZGET, &block_size) != 0)
    return sys_error("cannot read the size of " + path, errno);
  info.logical_block_size = static_cast<uint32_t>(block_size);
  info.detected_role = has_swap_signature(fd.get()) ? Role::swap : Role::data;
  return info;
}

}  // namespace ferry::volume
