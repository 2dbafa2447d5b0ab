// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/kept_copies.h"
#include "daemon/owners.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/log.h"
#include "daemon/owner_view.h"

namespace ferry::daemon {

using store::DiskRecord;
using store::Holding;

namespace {

std::vector<std::string> paths_of(const std::vector<DiskRecord>& disks) {
  std::vector<std::string> paths;
  for (const auto& disk : disks) paths.push_back(disk.path);
  return paths;
}

Error not_recorded(const api::OwnerTarget& target) {
  const std::string what = target.vm.empty() ? "no ownership record names a disk under " + target.path
                                             : "no ownership record names a disk of the VM " + target.vm;
  return make_error(Errc::not_found, what, 0, "migrate-ctl own lists what is on record");
}

// A migration into this host that was called off leaves new volumes revoked and those with an old copy given.
Status need_alike(const std::string& vm, const std::vector<DiskRecord>& disks) {
  const auto& first = disks.front();
  for (const auto& disk : disks)
    if (disk.holding != first.holding)
      return make_error(Errc::busy,
                        fmt::format("the disks of {} cannot be taken by force, for they are not held alike: {} is {}, "
                                    "{} is {}",
                                    vm, first.path, store::holding_name(first.holding), disk.path,
                                    store::holding_name(disk.holding)),
                        0, "see migrate-ctl own " + vm + ", and on the other host");
  return ok_status();
}

std::string force_command(const api::ForceBody& body) { return "migrate-ctl own --force " + body.target.name(); }

}  // namespace

Owners::Owners(std::string host_name, store::OwnershipStore& store, Ports ports)
    : host_name_(std::move(host_name)), store_(store), ports_(std::move(ports)) {}

// ---- look --------------------------------------------------------------------------------------

Result<std::vector<Owners::Group>> Owners::groups(const api::OwnerTarget& target) const {
  auto disks = store_.disks();
  if (!disks) return std::move(disks).error();
  std::string wanted_session;
  if (!target.path.empty()) {
    const auto by_name = [&](const DiskRecord& disk) { return disk.path == target.path; };
    auto found = std::find_if(disks->begin(), disks->end(), by_name);
    // Volumes have several names: /dev/vg0/web1 is /dev/mapper/vg0-web1.
    if (const auto named = ports_.identify(target.path); found == disks->end() && named)
      found = std::find_if(disks->begin(), disks->end(), [&](const DiskRecord& disk) {
        const auto known = ports_.identify(disk.path);
        return known && known->device == named->device;
      });
    if (found == disks->end()) return std::vector<Group>();
    wanted_session = found->session;
  }
  std::vector<Group> groups;  // the store lists by session
  for (auto& disk : *disks) {
    if (!wanted_session.empty() && disk.session != wanted_session) continue;
    if (groups.empty() || groups.back().session.id != disk.session) {
      auto session = store_.session(disk.session);
      if (!session) return std::move(session).error();
      Group group;
      if (*session) group.session = std::move(**session);
      group.session.id = disk.session;
      groups.push_back(std::move(group));
    }
    groups.back().disks.push_back(std::move(disk));
  }
  if (!target.vm.empty()) std::erase_if(groups, [&](const Group& group) { return group.session.vm != target.vm; });
  return groups;
}

// What is done to disks is done to those of one session, and to all of them.
Result<Owners::Group> Owners::one_group(const api::OwnerTarget& target) const {
  auto found = groups(target);
  if (!found) return std::move(found).error();
  if (found->empty()) return not_recorded(target);
  if (found->size() > 1)
    return make_error(Errc::usage,
                      fmt::format("the VM {} has disks of {} migrations on record", target.vm, found->size()), 0,
                      fmt::format("name one of them by a volume, {} or {}", (*found)[0].disks.front().path,
                                  (*found)[1].disks.front().path));
  return std::move(found->front());
}

Result<api::Definition> Owners::definition(const api::OwnerTarget& target) {
  auto group = one_group(target);
  if (!group) return std::move(group).error();
  auto& session = group->session;
  if (session.domain_xml.empty())
    return make_error(Errc::not_found, "no definition of the VM " + session.vm + " is on record", 0,
                      "libvirt had none to keep when it was moved: take it from your own records");
  return api::Definition{session.vm, session.id, std::move(session.domain_xml)};
}

api::Presence Owners::presence(const DiskRecord& disk) const {
  const auto volume = ports_.identify(disk.path);
  if (!volume) return api::Presence::absent;
  const bool same = disk.volume_id.empty() || volume->id == disk.volume_id;
  return same ? api::Presence::present : api::Presence::replaced;
}

Result<api::OwnerList> Owners::list(const api::OwnerTarget& target) {
  auto found = groups(target);
  if (!found) return std::move(found).error();
  if (found->empty() && !target.empty()) return not_recorded(target);
  auto attached = ports_.attached();
  if (!attached) spdlog::warn("the filter's state cannot be told: {}", attached.error().message());
  api::OwnerList list;
  list.host = host_name_;
  for (const auto& group : *found)
    for (const auto& disk : group.disks) {
      VolumeView now;
      now.presence = presence(disk);
      if (now.presence == api::Presence::present) {
        now.closed = ports_.closed(disk);
        const auto volume = ports_.identify(disk.path);
        if (attached && volume)
          for (const auto& entry : *attached)
            if (entry.name == volume->dm_name) now.filter = filter_word(entry);
      }
      list.disks.push_back(view_of(host_name_, group.session, disk, now));
    }
  return list;
}

// ---- force -------------------------------------------------------------------------------------

Result<api::Forced> Owners::force(const api::ForceBody& body) {
  std::lock_guard lock(mutex_);
  auto group = one_group(body.target);
  if (!group) return std::move(group).error();
  FERRY_TRY(need_alike(group->session.vm, group->disks));
  switch (group->disks.front().holding) {
    case Holding::granting: return force_granting(*group, body);
    case Holding::given:
      // On a destination it may be half overwritten by a migration that was called off.
      if (group->session.outgoing) return take_given(std::move(*group), body);
      break;
    case Holding::moving:
    case Holding::owned: return reopen(*group, body);
    default: break;
  }
  return force_refusal(group->session, group->disks.front());
}

// The job knows what is under way, so it does what has to be done, the guest included.
Result<api::Forced> Owners::force_granting(const Group& group, const api::ForceBody& body) {
  if (!body.peer_is_dead) return force_risk(group.session, group.disks.front(), force_command(body));
  FERRY_TRY(ports_.force_job(group.session.id));
  spdlog::warn("{}: the operator vouches that {} is dead: the disks of {} are taken back", group.session.id,
               peer_name(group.session), group.session.vm);
  return api::Forced{group.session.vm, group.session.id, paths_of(group.disks), std::nullopt, group.session.id};
}

Result<api::Forced> Owners::take_given(Group group, const api::ForceBody& body) {
  if (ports_.job_runs(group.session.id))
    return make_error(Errc::busy, "the migration of " + group.session.vm + " is not over yet", 0,
                      "wait for it: migrate-ctl status " + group.session.id + " --watch");
  for (const auto& disk : group.disks)
    if (presence(disk) == api::Presence::replaced)
      return make_error(Errc::not_found,
                        "under " + disk.path + " lies another volume than the one that was given away", 0,
                        "look for the volume " + disk.volume_id + "; without it there is nothing to take");
  if (!body.peer_is_dead) return force_risk(group.session, group.disks.front(), force_command(body));
  for (auto& disk : group.disks) {
    disk.holding = Holding::owned;
    ++disk.generation;
    disk.verified = false;
    disk.reason = "taken by force: the operator vouched that " + peer_name(group.session) + " is dead";
  }
  group.session.errand.clear();  // the host that it leads to is dead
  FERRY_TRY(store_.put(group.session, group.disks));
  spdlog::warn("{}: the disks of {} were {}'s and are {}", group.session.id, group.session.vm,
               peer_name(group.session), group.disks.front().reason);
  return open_all(group);
}

// Shut for writing although the records say "ours": a step after the record failed.
bool Owners::is_shut(const DiskRecord& disk) const {
  switch (presence(disk)) {
    case api::Presence::absent: return true;  // LVM may keep it inactive
    case api::Presence::replaced: return false;
    case api::Presence::present: break;
  }
  return ports_.closed(disk);
}

Result<api::Forced> Owners::reopen(const Group& group, const api::ForceBody& body) {
  if (ports_.job_runs(group.session.id))
    return make_error(Errc::busy, "a migration of " + group.session.vm + " is under way, and its disks are this host's",
                      0, "to stop it: migrate-ctl abort " + group.session.vm);
  if (std::none_of(group.disks.begin(), group.disks.end(), [&](const DiskRecord& disk) { return is_shut(disk); }))
    return make_error(Errc::busy, "the disks of " + group.session.vm + " are this host's already, and open", 0,
                      "see migrate-ctl own " + body.target.name());
  return open_all(group);
}

Result<api::Forced> Owners::open_all(const Group& group) {
  for (const auto& disk : group.disks) {
    if (!is_shut(disk)) continue;
    auto opened = ports_.unbar(disk);
    if (opened) continue;
    Error error = std::move(opened).error();
    error.what = fmt::format("the disks of {} are on record as this host's, but {} cannot be opened: {}",
                             group.session.vm, disk.path, error.what);
    error.hint += std::string(error.hint.empty() ? "" : "; ") + "then again: migrate-ctl own --force " + disk.path;
    return error;
  }
  return api::Forced{group.session.vm, group.session.id, paths_of(group.disks), group.disks.front().generation,
                     std::nullopt};
}

// ---- release -----------------------------------------------------------------------------------

Result<api::Released> Owners::release(const api::ReleaseBody& body) {
  std::lock_guard lock(mutex_);
  auto group = one_group(body.target);
  if (!group && group.error().code == Errc::not_found && !body.target.path.empty()) return release_unrecorded(body);
  if (!group) return std::move(group).error();
  FERRY_TRY(may_release(*group, body));
  return let_go(*group);
}

Status Owners::may_release(const Group& group, const api::ReleaseBody& body) const {
  for (const auto& disk : group.disks)
    if (disk.holding != Holding::given && disk.holding != Holding::revoked) return release_refusal(group.session, disk);
  if (ports_.job_runs(group.session.id))
    return make_error(Errc::busy, "the migration of " + group.session.vm + " is not over yet", 0,
                      "wait for it: migrate-ctl status " + group.session.id + " --watch");
  // What lies on a destination was never the only copy.
  if (!group.session.outgoing || body.unverified) return ok_status();
  for (const auto& disk : group.disks) {
    if (disk.verified) continue;
    const auto peer = peer_name(group.session);
    return make_error(Errc::verify_mismatch,
                      fmt::format("the copy of {} on {} was never found equal to {}", disk.target, peer, disk.path), 0,
                      fmt::format("look on {} whether the VM is sound: this is its last other copy; then: migrate-ctl "
                                  "release {} --unverified",
                                  peer, body.target.name()));
  }
  return ok_status();
}

// The records go first, or BarWatch would close the volumes again. Those of volumes that stay closed come back.
Result<api::Released> Owners::let_go(const Group& group) {
  std::vector<std::string> uuids;
  for (const auto& disk : group.disks) uuids.push_back(disk.uuid);
  FERRY_TRY(store_.forget(uuids));
  std::vector<DiskRecord> stuck;
  std::optional<Error> first;
  for (const auto& disk : group.disks) {
    // A revoked one is as it was before, and may be in use for something else.
    if (disk.holding == Holding::revoked && !is_shut(disk)) continue;
    // What was made for a migration that never came to its end is of no use to anybody.
    auto opened = is_kept_copy(disk) ? ports_.remove(disk) : ports_.unbar(disk);
    // Removed, or another volume has its place: nothing of the session is there to be opened.
    if (opened || opened.error().code == Errc::not_found) continue;
    spdlog::error("{}: {}", disk.path, opened.error().message());
    if (!first) first = std::move(opened).error();
    stuck.push_back(disk);
  }
  if (!first) {
    spdlog::warn("{}: the volumes of {} are released: their contents may be overwritten now", group.session.id,
                 group.session.vm);
    return api::Released{group.session.vm, paths_of(group.disks)};
  }
  if (auto kept = store_.put(group.session, stuck); !kept)
    spdlog::error("{}: the records of volumes that are still closed are lost: {}", group.session.id,
                  kept.error().message());
  first->what = fmt::format("{} of {} volumes of {} could not be released: {}", stuck.size(), group.disks.size(),
                            group.session.vm, first->what);
  return *first;
}

// Closed, and nobody knows why: the records were lost, or an earlier release was cut short.
Result<api::Released> Owners::release_unrecorded(const api::ReleaseBody& body) {
  const auto& path = body.target.path;
  const auto volume = ports_.identify(path);
  if (!volume) return volume.error();
  DiskRecord disk;
  disk.path = path;
  disk.volume_id = volume->id;
  if (!ports_.closed(disk))
    return make_error(Errc::not_found, path + " is not closed, and no ownership record names it", 0,
                      "there is nothing to release; a filter that tracks goes with: migrate-ctl detach " + path);
  if (!body.unverified)
    return make_error(Errc::owner_unknown, path + " is closed, and no record says to whom its contents belong", 0,
                      "if no other host's copy depends on them: migrate-ctl release " + path + " --unverified");
  FERRY_TRY(ports_.unbar(disk));
  spdlog::warn("{}: released without a record", path);
  return api::Released{"", {path}};
}

}  // namespace ferry::daemon
