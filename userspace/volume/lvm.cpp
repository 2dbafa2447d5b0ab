// SPDX-License-Identifier: GPL-2.0-or-later
#include <cctype>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <vector>

#include "base/process.h"
#include "volume/volume.h"

namespace ferry::volume {
namespace {

constexpr const char* kHiddenTag = "ferry_fenced";
constexpr std::string_view kMadeForTag = "ferry_for_";
// A question waits for the lock of a command that works on the group, not for ever.
constexpr int kQuestionTimeoutMs = 30'000;

// The characters LVM allows, none of which can be an option or a path of another place.
bool is_lvm_name(const std::string& name) {
  if (name.empty() || name.size() > 127 || name[0] == '-' || name == "." || name == "..")
    return false;
  for (char c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && !std::strchr("+_.-", c)) return false;
  return true;
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// LVM warns about many things; the last line is the reason.
std::string last_line(const std::string& text) {
  size_t end = text.find_last_not_of(" \n");
  if (end == std::string::npos) return {};
  size_t begin = text.rfind('\n', end);
  begin = text.find_first_not_of(" \n", begin == std::string::npos ? 0 : begin);
  return text.substr(begin, end - begin + 1);
}

Status run_lvm(const std::vector<std::string>& argv, const std::string& what) {
  // Never cut a change of metadata short: the limit is for a command that hangs for good.
  auto output = run_process(argv, {.timeout_ms = 600'000});
  if (!output.ok()) return std::move(output).error();
  if (output->exit_status != 0) return lvm_error(what, output->exit_status, output->err);
  return ok_status();
}

Error not_understood() {
  return make_error(Errc::unsupported, "lvs gave an answer that is not understood");
}

Result<nlohmann::json> first_row(const std::string& json) {
  auto report = nlohmann::json::parse(json, nullptr, false);
  if (report.is_discarded() || !report.is_object() || !report.contains("report"))
    return not_understood();
  for (const auto& part : report["report"]) {
    if (!part.is_object() || !part.contains("lv") || !part["lv"].is_array()) return not_understood();
    for (const auto& row : part["lv"])
      if (row.is_object()) return row;
  }
  return not_understood();
}

std::vector<std::string> split_tags(const std::string& list) {
  std::vector<std::string> tags;
  std::istringstream in(list);
  for (std::string tag; std::getline(in, tag, ',');) tags.push_back(tag);
  return tags;
}

std::optional<std::string> column(const nlohmann::json& row, const char* name) {
  const auto found = row.find(name);
  if (found == row.end() || !found->is_string()) return std::nullopt;
  return found->get<std::string>();
}

}  // namespace

bool split_lvm_name(const std::string& dm_name, std::string& vg, std::string& lv) {
  std::string parts[2];
  int part = 0;
  for (size_t i = 0; i < dm_name.size(); ++i) {
    if (dm_name[i] != '-') {
      parts[part] += dm_name[i];
    } else if (i + 1 < dm_name.size() && dm_name[i + 1] == '-') {
      parts[part] += '-';
      ++i;
    } else if (part == 0) {
      part = 1;
    } else {
      return false;  // a layer below the volume, as "-real"
    }
  }
  if (parts[0].empty() || parts[1].empty()) return false;
  vg = parts[0];
  lv = parts[1];
  return true;
}

Error lvm_error(const std::string& what, int exit_status, const std::string& complaint) {
  std::string text = what + ": " + last_line(complaint);
  if (contains(complaint, "insufficient free space") ||
      contains(complaint, "Insufficient free space") ||
      contains(complaint, "insufficient suitable") || contains(complaint, "out of data space"))
    return make_error(Errc::no_space, text, 0,
                      "free some extents or extend the volume group (vgs, vgextend)");
  if (contains(complaint, "already exists"))
    return make_error(Errc::busy, text, 0, "choose the existing volume, or remove it (lvremove)");
  if (contains(complaint, "in use") || contains(complaint, "is used by"))
    return make_error(Errc::busy, text, 0, "end what uses the volume (lsblk, fuser)");
  if (contains(complaint, "not found") || contains(complaint, "Failed to find"))
    return make_error(Errc::not_found, text, 0, "look at what there is: vgs, lvs");
  if (contains(complaint, "Permission denied") || contains(complaint, "must be run as root"))
    return make_error(Errc::permission, text, 0, "run as root");
  return make_error(Errc::failed, text + " (exit status " + std::to_string(exit_status) + ')');
}

Result<std::pair<std::string, std::string>> parse_lvs(const std::string& json) {
  auto row = first_row(json);
  if (!row.ok()) return std::move(row).error();
  auto vg = column(*row, "vg_name"), lv = column(*row, "lv_name");
  if (!vg || !lv) return not_understood();
  return std::pair(*vg, *lv);
}

bool split_lv_path(const std::string& path, std::string& vg, std::string& lv) {
  const std::string dev = "/dev/", mapper = "/dev/mapper/";
  if (path.rfind(mapper, 0) == 0) return split_lvm_name(path.substr(mapper.size()), vg, lv);
  if (path.rfind(dev, 0) != 0) return false;
  const size_t slash = path.find('/', dev.size());
  if (slash == std::string::npos) return false;
  vg = path.substr(dev.size(), slash - dev.size());
  lv = path.substr(slash + 1);
  return is_lvm_name(vg) && is_lvm_name(lv) && vg != "disk" && vg != "block";
}

Result<LvState> parse_lv_state(const std::string& json) {
  auto row = first_row(json);
  if (!row.ok()) return std::move(row).error();
  auto vg = column(*row, "vg_name"), lv = column(*row, "lv_name");
  auto vg_uuid = column(*row, "vg_uuid"), lv_uuid = column(*row, "lv_uuid");
  auto active = column(*row, "lv_active"), tags = column(*row, "lv_tags");
  auto skip = column(*row, "lv_skip_activation");
  if (!vg || !lv || !vg_uuid || !lv_uuid || !active || !tags || !skip) return not_understood();
  LvState state;
  state.vg = *vg;
  state.lv = *lv;
  state.id = "LVM-" + *vg_uuid + *lv_uuid;
  std::erase(state.id, '-');
  state.id.insert(3, "-");
  state.active = !active->empty();
  for (const auto& tag : split_tags(*tags)) {
    if (tag == kHiddenTag) state.hidden = !skip->empty();
    if (tag.rfind(kMadeForTag, 0) == 0) state.made_for = tag.substr(kMadeForTag.size());
  }
  return state;
}

Result<LvState> find_lv(const std::string& path) {
  std::string vg, lv;
  if (!split_lv_path(path, vg, lv))
    return make_error(Errc::usage, path + " is not the path of a logical volume");
  auto output = run_process({"lvs", "--reportformat", "json", "-o",
                             "vg_name,lv_name,vg_uuid,lv_uuid,lv_active,lv_tags,lv_skip_activation",
                             vg + '/' + lv},
                            {.timeout_ms = kQuestionTimeoutMs});
  if (!output.ok()) return std::move(output).error();
  if (output->exit_status != 0)
    return lvm_error("cannot look at the volume " + vg + '/' + lv, output->exit_status, output->err);
  return parse_lv_state(output->out);
}

Status hide_lv(const LvState& lv) {
  return run_lvm({"lvchange", "--setactivationskip", "y", "--addtag", kHiddenTag, lv.vg + '/' + lv.lv},
                 "cannot hide the volume " + lv.vg + '/' + lv.lv);
}

Status show_lv(const LvState& lv) {
  return run_lvm({"lvchange", "--setactivationskip", "n", "--deltag", kHiddenTag, lv.vg + '/' + lv.lv},
                 "cannot bring the volume " + lv.vg + '/' + lv.lv + " back");
}

Status forget_made_for(const LvState& lv) {
  if (lv.made_for.empty()) return ok_status();
  return run_lvm({"lvchange", "--deltag", std::string(kMadeForTag) + lv.made_for, lv.vg + '/' + lv.lv},
                 "cannot take the tag " + std::string(kMadeForTag) + lv.made_for + " off the volume " + lv.vg + '/' + lv.lv);
}

Status activate_lv(const LvState& lv) {
  return run_lvm({"lvchange", "--activate", "y", "--ignoreactivationskip", lv.vg + '/' + lv.lv},
                 "cannot activate the volume " + lv.vg + '/' + lv.lv);
}

Result<VolumeInfo> create_lv(const std::string& vg, const std::string& lv, uint64_t size_bytes,
                             const std::string& made_for) {
  std::string what = "cannot create the volume " + vg + '/' + lv;
  if (!is_lvm_name(vg) || !is_lvm_name(lv) || size_bytes == 0)
    return make_error(Errc::usage, what + ": not a name LVM allows, or no size");
  // --wipesignatures n: the whole contents are about to be overwritten; a question would hang.
  std::vector<std::string> argv{"lvcreate", "--yes", "--wipesignatures", "n", "--name", lv, "--size",
                                std::to_string(size_bytes) + "b"};
  if (!made_for.empty()) argv.insert(argv.end(), {"--addtag", std::string(kMadeForTag) + made_for});
  argv.push_back(vg);
  FERRY_TRY(run_lvm(argv, what));
  auto info = inspect("/dev/" + vg + '/' + lv);
  if (info.ok() && info->size_bytes != size_bytes) {
    Status removed = remove_lv(info->path);
    std::string text = what + " of exactly " + std::to_string(size_bytes) +
                       " bytes: LVM rounds it to " + std::to_string(info->size_bytes);
    if (!removed.ok()) text += "; it could not be removed again: " + removed.error().message();
    return make_error(Errc::size_mismatch, text, 0,
                      "use a volume group whose extent size divides the disk's size");
  }
  return info;
}

Status remove_lv(const std::string& path) {
  const std::string what = "cannot remove the volume " + path;
  auto info = identify(path);
  if (info.ok() && info->kind != VolumeInfo::Kind::lvm)
    return make_error(Errc::unsupported, path + " is not a logical volume");
  if (info.ok()) return run_lvm({"lvremove", "--yes", info->vg + '/' + info->lv}, what);
  if (info.error().code != Errc::not_found) return std::move(info).error();
  // One that is not active has no device, but a name.
  auto lv = find_lv(path);
  if (!lv.ok()) return std::move(lv).error();
  return run_lvm({"lvremove", "--yes", lv->vg + '/' + lv->lv}, what);
}

}  // namespace ferry::volume
