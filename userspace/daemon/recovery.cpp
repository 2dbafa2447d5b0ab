// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/recovery.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "base/log.h"
#include "daemon/bars.h"
#include "daemon/incoming_guest.h"
#include "daemon/kept_copies.h"
#include "daemon/recovered_job.h"
#include "daemon/source_hypervisor.h"
#include "filter/attachment.h"
#include "hypervisor/libvirt.h"
#include "migration/ownership.h"
#include "volume/volume.h"

namespace ferry::daemon {
namespace {

using store::DiskRecord;
using store::Holding;
using store::SessionRecord;

bool is_the_volume(const DiskRecord& disk) {
  auto volume = volume::identify(disk.path);
  return volume && (disk.volume_id.empty() || volume->id == disk.volume_id);
}

// Without a look into it: reads from a closed gate wait.
bool is_open(const DiskRecord& disk) {
  auto volume = volume::identify(disk.path);
  return volume && volume::is_open(*volume);
}

// A volume that was made is on record under its own id only a little later: until then its tag tells.
bool was_made_for(const DiskRecord& disk, const volume::LvState& lv) {
  return disk.volume_id.empty() ? lv.made_for == disk.session : lv.id == disk.volume_id;
}

// The volume's plain table, whatever the filter was doing there.
void take_filter_out(const DiskRecord& disk) {
  if (!is_the_volume(disk)) return;
  auto done = filter::detach_volume(disk.path, true);
  if (!done && done.error().code != Errc::not_found) spdlog::error("{}", done.error().message());
}

// libvirt ends it by itself, a moment after its client has gone with the earlier ferryd.
void end_guest_on(const std::vector<DiskRecord>& disks, const Config& config, const SessionRecord& session) {
  if (std::none_of(disks.begin(), disks.end(), is_open)) return;
  if (auto gone = end_incoming_guest(config, session.vm, session.domain_xml); !gone)
    spdlog::warn("{}: {}", session.id, gone.error().message());
}

// Whether a called-off migration has left the volume that it made, or its gate in one that was there before. A made
// volume that has lost its tag is somebody's.
bool is_left(const DiskRecord& disk) {
  if (!disk.created) return has_lost_gate(disk);
  const auto lv = volume::find_lv(disk.path);
  return lv && !lv->made_for.empty();
}

// A volume that a migration made, and that never became anybody's.
void remove_made(const DiskRecord& disk) {
  const auto lv = volume::find_lv(disk.path);
  if (!lv && (lv.error().code == Errc::not_found || lv.error().code == Errc::usage)) return;  // never made
  if (!lv || !was_made_for(disk, *lv))
    return spdlog::warn("{} is not removed: {}", disk.path,
                        lv ? "it was not made for that migration" : lv.error().message());
  if (auto removed = remove_closed(disk.path); !removed) spdlog::error("{}", removed.error().message());
}

void note(store::OwnershipStore& store, const SessionRecord& session, std::vector<DiskRecord> disks, Holding holding,
          std::uint64_t generation, const std::string& reason) {
  for (auto& disk : disks) {
    disk.holding = holding;
    disk.generation = generation;
    disk.reason = reason;
  }
  if (auto put = store.put(session, disks); !put) spdlog::error("{}: {}", session.id, put.error().message());
}

// Nothing was granted: the disks never ceased to be this host's.
void take_back_outgoing(const Config& config, store::OwnershipStore& store, const SessionRecord& session,
                        std::vector<DiskRecord> disks) {
  spdlog::warn("{}: the migration of {} to {} was under way when ferryd ended; it is taken back", session.id, session.vm,
               session.peer_host);
  for (auto& disk : disks) {
    take_filter_out(disk);
    disk.tracker.clear();
  }
  let_guest_go_on(config, session.vm);
  note(store, session, disks, Holding::owned, disks.front().generation, "the migration to " + session.peer_host +
                                                                            " ended with ferryd");
}

// Nothing was taken: whoever asks will hear that it never will be.
void take_back_incoming(const Config& config, store::OwnershipStore& store, const SessionRecord& session,
                        const std::vector<DiskRecord>& disks) {
  spdlog::warn("{}: {} was coming in from {}, and is over without a record of its end; it is called off", session.id,
               session.vm, session.peer_host);
  const std::string reason = "the migration from " + session.peer_host + " was cut short";
  std::vector<DiskRecord> created, kept;
  for (const auto& disk : disks) {
    // After a reboot it may be inactive, as closed volumes are: the next session wakes it.
    const bool replaced = volume::identify(disk.path) && !is_the_volume(disk);
    const bool goes_on = disk.expires_at != 0 && !disk.volume_id.empty() && !replaced;
    (disk.created && !goes_on ? created : kept).push_back(disk);
  }
  const auto generation = disks.front().generation;
  if (!created.empty()) note(store, session, created, Holding::revoked, generation, reason);
  // Half of it is overwritten, and what it was before (plain, or an old copy) is not on record: it stays closed. Or
  // it was made for the migration, which will go on with it.
  if (!kept.empty()) note(store, session, kept, Holding::given, generation, reason);
  end_guest_on(disks, config, session);
  for (const auto& disk : kept)
    if (auto barred = bar_volume(disk); !barred) spdlog::error("{}", barred.error().message());
  for (const auto& disk : created) remove_made(disk);
}

// ferryd may have ended between the promise never to open them and the clean-up. `claimed`: paths and volume ids that
// other records have to do with by now.
void clean_up_revoked(const Config& config, const SessionRecord& session, const std::vector<DiskRecord>& disks,
                      const std::set<std::string>& claimed) {
  std::vector<DiskRecord> left;
  for (const auto& disk : disks)
    if (!claimed.contains(disk.path) && !claimed.contains(disk.volume_id) && is_left(disk)) left.push_back(disk);
  if (left.empty()) return;
  spdlog::warn("{}: {} was called off and not cleaned up when ferryd ended", session.id, session.vm);
  end_guest_on(left, config, session);
  for (const auto& disk : left) disk.created ? remove_made(disk) : take_filter_out(disk);
}

// A migration that did not come to its end in an earlier ferryd's time.
void note_errand(const SessionRecord& session, std::vector<Errand>& errands) {
  if (!session.outgoing || session.errand.empty()) return;
  auto errand = parse_errand(session.errand);
  if (!errand) return spdlog::error("{}: {}", session.id, errand.error().message());
  errands.push_back(std::move(*errand));
}

}  // namespace

Result<std::vector<Errand>> recover(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Jobs& jobs,
                                    const std::function<void(const api::JobStatus&)>& changed) {
  std::vector<Errand> errands;
  auto all = store.disks();
  if (!all) return std::move(all).error();
  // One session may leave some of its disks called off, and others closed.
  std::map<std::pair<std::string, Holding>, std::vector<DiskRecord>> groups;
  std::set<std::string> claimed;
  for (auto& disk : *all) {
    if (disk.holding != Holding::revoked) claimed.insert({disk.path, disk.volume_id});
    groups[{disk.session, disk.holding}].push_back(std::move(disk));
  }
  claimed.erase("");  // not known yet
  for (auto& [group, disks] : groups) {
    auto session = store.session(group.first);
    if (!session) return std::move(session).error();
    if (!*session) continue;
    switch (group.second) {
      case Holding::moving:
        take_back_outgoing(config, store, **session, disks);
        note_errand(**session, errands);
        break;
      case Holding::granting: {
        auto job = std::make_shared<RecoveredJob>(config, loop, store, **session, disks, changed);
        for (const auto& disk : disks)
          if (auto barred = bar_volume(disk); !barred) spdlog::error("{}", barred.error().message());
        FERRY_TRY(jobs.add(job));
        job->start();
        break;
      }
      case Holding::receiving:
      case Holding::prepared:
        take_back_incoming(config, store, **session, disks);
        break;
      case Holding::given:
        for (const auto& disk : disks) {
          // Given back, from a volume that was made to take it in; the others are kept, or were there before.
          const bool useless = !(*session)->outgoing && disk.created && disk.expires_at == 0;
          if (useless) {
            if (auto removed = remove_copy(disk); !removed) spdlog::error("{}", removed.error().message());
          } else if (auto barred = bar_volume(disk); !barred) {
            spdlog::error("{}", barred.error().message());
          }
        }
        break;
      case Holding::owned:
        // Taken over or taken back, and ferryd may have ended before it had let the guest at them.
        for (const auto& disk : disks) {
          if (!follower_of(disk)) take_filter_out(disk);
          if (auto open = unbar_volume(disk); !open) spdlog::error("{}", open.error().message());
        }
        if ((*session)->outgoing) let_guest_go_on(config, (*session)->vm);
        note_errand(**session, errands);
        break;
      case Holding::revoked:
        clean_up_revoked(config, **session, disks, claimed);
        break;
    }
  }
  return errands;
}

void take_back_dead_claims(const Config& config, store::OwnershipStore& store, const Jobs& jobs,
                           const PrepareRequest& request) {
  for (const auto& asked : request.disks) {
    const auto known = store.by_uuid(asked.uuid);
    if (asked.uuid.empty() || !known || !*known || (*known)->holding != Holding::receiving) continue;
    const auto& id = (*known)->session;
    if (const auto job = jobs.incoming(id); job && !job->ended()) continue;
    const auto session = store.session(id);
    auto disks = store.of_session(id);
    if (!session || !*session || !disks) continue;
    std::erase_if(*disks, [](const DiskRecord& disk) { return disk.holding != Holding::receiving; });
    take_back_incoming(config, store, **session, *disks);
  }
}

}  // namespace ferry::daemon
