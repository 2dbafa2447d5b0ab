// SPDX-License-Identifier: GPL-2.0-or-later
// What a path is: size, kind, role, whether it is in use; making and removing logical volumes.
// LVM is asked through its own commands, run without a shell.
// Thread-safety: the calls are independent; LVM's own locks order its commands.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/result.h"

namespace ferry::volume {

enum class Role { data, swap, scratch };
// "data", "swap", "scratch".
const char* role_name(Role role);
Result<Role> role_from_name(const std::string& name);

struct VolumeInfo {
  enum class Kind { lvm, dm, block };

  std::string path;        // as LVM or device-mapper name it, links followed
  std::string dm_name;     // empty for kind block
  std::string vg, lv;      // kind lvm only
  std::string id;          // the same as long as it is the same volume (identity.h); may be empty
  dev_t device = 0;
  Kind kind = Kind::block;
  uint64_t size_bytes = 0;
  uint32_t logical_block_size = 512;
  Role detected_role = Role::data;  // swap when it carries a swap signature
  bool in_use = false;     // opened, mounted, or part of another device
};

// Path, names, kind and identity of a block device, the rest keeps its defaults. Asks the kernel alone: it neither
// opens the device nor waits for LVM.
Result<VolumeInfo> identify(const std::string& path);
// Whether anybody has a device of device-mapper open; false for other devices. Asks the kernel alone.
bool is_open(const VolumeInfo& volume);
// Looks at a block device without changing it. Never reads for the role from a device that makes
// reads wait (a closed gate); that is the caller's business.
Result<VolumeInfo> inspect(const std::string& path);

// size_bytes is rounded up by LVM to whole extents; size_mismatch when the result is not exactly
// size_bytes. no_space when the group cannot hold it, busy when the name is taken. `made_for`, if not empty, stays with
// the volume from its first moment on, as the tag ferry_for_<made_for>: see LvState.
Result<VolumeInfo> create_lv(const std::string& vg, const std::string& lv, uint64_t size_bytes,
                             const std::string& made_for = {});
// Removes a logical volume that nobody uses, active or not.
Status remove_lv(const std::string& path);

// A logical volume as its group's metadata knows it, whether it is active or not.
struct LvState {
  std::string vg, lv;
  std::string id;       // as VolumeInfo::id
  bool active = false;
  bool hidden = false;  // see hide_lv()
  std::string made_for;  // as create_lv() was told
};
// `path`: /dev/VG/LV or /dev/mapper/NAME; need not exist. usage when it cannot be a logical volume's,
// not_found when there is no such one (its group may be missing).
Result<LvState> find_lv(const std::string& path);
// Tags the volume ferry_fenced and lets it out of every activation that does not insist (lvchange -K):
// after a reboot it is not there. Metadata only: the live table stays as it is. And the way back.
Status hide_lv(const LvState& lv);
Status show_lv(const LvState& lv);
// Takes the tag of create_lv() off, if there is one. Metadata only.
Status forget_made_for(const LvState& lv);
// Makes a hidden volume active, too.
Status activate_lv(const LvState& lv);

// Pure, for tests ---------------------------------------------------------------------------------

// Splits a dm name of LVM ("vg--a-lv" → "vg-a", "lv"); false when it is none.
bool split_lvm_name(const std::string& dm_name, std::string& vg, std::string& lv);
// What an lvm command's complaint means.
Error lvm_error(const std::string& what, int exit_status, const std::string& complaint);
// The two names from `lvs --reportformat json -o vg_name,lv_name`.
Result<std::pair<std::string, std::string>> parse_lvs(const std::string& json);
// /dev/VG/LV and /dev/mapper/NAME → both names; false for other paths.
bool split_lv_path(const std::string& path, std::string& vg, std::string& lv);
// From lvs with the columns that find_lv() asks for.
Result<LvState> parse_lv_state(const std::string& json);

}  // namespace ferry::volume
