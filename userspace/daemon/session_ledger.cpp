// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/session_ledger.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "daemon/bars.h"
#include "filter/uuid.h"
#include "migration/ownership.h"
#include "volume/volume.h"

namespace ferry::daemon {

using migration::Holding;

SessionLedger::SessionLedger(store::OwnershipStore& store, store::SessionRecord session,
                             std::vector<store::DiskRecord> disks, std::uint64_t base, Done done)
    : store_(store), session_(std::move(session)), disks_(std::move(disks)), base_(base),
      granted_(!disks_.empty() && disks_.front().holding == Holding::granting), done_(std::move(done)) {
  if (session_.outgoing) return;
  for (const auto& disk : disks_)
    if (disk.holding == Holding::given) old_copies_.insert(disk.uuid);
}

void SessionLedger::set_verified(std::map<std::string, std::string> digests) {
  std::lock_guard lock(mutex_);
  digests_ = std::move(digests);
}

void SessionLedger::set_trackers(std::map<std::string, std::string> trackers) {
  std::lock_guard lock(mutex_);
  trackers_ = std::move(trackers);
}

void SessionLedger::set_keeping(std::function<std::set<std::string>()> kept, std::uint64_t keep_s) {
  kept_ = std::move(kept);
  keep_s_ = keep_s;
}

void SessionLedger::stamp(store::DiskRecord& disk, Holding holding, bool keeps) const {
  disk.session = session_.id;
  disk.reason = reason_for(holding);
  disk.holding = holding;
  disk.expires_at = 0;
  const bool coming_in = holding == Holding::receiving || holding == Holding::prepared;
  if (holding == Holding::revoked) {
    // Closed remains a volume with an older copy of the disk, and one whose copy is kept to go on with.
    const bool old_copy = old_copies_.contains(disk.uuid) && !disk.created;
    if (keeps || old_copy) disk.holding = Holding::given;
    if (keeps) disk.reason += "; what was copied is kept";
  }
  // While it comes in: what a restart goes by.
  if (disk.created && keep_s_ > 0 && (coming_in || (holding == Holding::revoked && keeps)))
    disk.expires_at = store::unix_now() + static_cast<std::int64_t>(keep_s_);
  std::lock_guard lock(mutex_);
  const auto digest = digests_.find(disk.target);
  disk.verified = digest != digests_.end();
  disk.digest = disk.verified ? digest->second : "";
  const auto tracker = trackers_.find(disk.target);
  const bool ours = holding == Holding::owned || holding == Holding::moving;
  disk.tracker = ours && tracker != trackers_.end() ? tracker->second : "";
}

void SessionLedger::record(Holding holding) {
  const auto kept = holding == Holding::revoked && kept_ ? kept_() : std::set<std::string>();
  worker_.post([this, holding, kept] {
    for (auto& disk : disks_) {
      stamp(disk, holding, kept.contains(disk.target));
      disk.generation = generation_of(holding);
    }
    if (holding == Holding::granting) granted_ = true;  // even if it fails: it may be on record all the same
    done_(store_.put(session_, disks_));
  });
}

void SessionLedger::learn() {
  worker_.post([this] {
    bool learned = false;
    for (auto& disk : disks_) {
      if (!disk.volume_id.empty()) continue;
      if (auto volume = volume::identify(disk.path)) disk.volume_id = volume->id;
      learned = true;
    }
    if (!learned) return;
    if (auto put = store_.put(session_, disks_); !put)
      spdlog::warn("{}: {}", session_.id, put.error().message());
  });
}

void SessionLedger::settle_bars() {
  worker_.post([this] {
    for (const auto& disk : disks_) {
      // The job is seen to have ended by now: the admin may have released the disk, or moved it on.
      const auto unchanged = [this, &disk] {
        const auto known = store_.by_uuid(disk.uuid);
        return known && *known && (*known)->holding == disk.holding && (*known)->session == disk.session;
      };
      if (!unchanged()) continue;
      Status done = ok_status();
      if (store::is_barred(disk.holding)) {
        if (auto barred = bar_volume(disk, unchanged); !barred) done = barred.error();
      } else if (disk.holding == Holding::owned) {
        done = unbar_volume(disk, unchanged);
      }
      if (!done) spdlog::error("{}: {}", session_.id, done.error().message());
    }
  });
}

std::uint64_t SessionLedger::generation_of(Holding holding) {
  if (!session_.outgoing)
    return holding == Holding::given ? migration::reclaimed_generation(base_) : migration::granted_generation(base_);
  switch (holding) {
    case Holding::granting:
    case Holding::given:
      return migration::granted_generation(base_);
    case Holding::owned:
      return granted_ ? migration::reclaimed_generation(base_) : base_;
    default:
      return base_;
  }
}

std::string SessionLedger::reason_for(Holding holding) const {
  const auto& peer = session_.peer_host;
  switch (holding) {
    case Holding::moving:
      return "being copied to " + peer;
    case Holding::granting:
      return "granted to " + peer + ", which has not confirmed it yet";
    case Holding::given:
      return session_.outgoing ? peer + " took it over" : "given back to " + peer + ": the guest did not start here";
    case Holding::receiving:
      return "being filled from " + peer;
    case Holding::prepared:
      return "complete; " + peer + " has not granted it yet";
    case Holding::owned:
      if (session_.outgoing) return "the migration to " + peer + " was taken back";
      return "taken over from " + peer;
    case Holding::revoked:
      return "the migration from " + peer + " was called off";
  }
  return {};
}

namespace {

// What is on record of a volume, whatever its path was then; of one that was still to be made, by the path. Of several,
// the one that somebody else has a claim on. Not that of the disk `except`.
const store::DiskRecord* on_record(const std::vector<store::DiskRecord>& records, const std::string& path,
                                   const std::string& volume_id, const std::string& except) {
  const auto weight = [](const store::DiskRecord& disk) {
    return disk.holding == Holding::revoked ? 0 : disk.holding == Holding::owned ? 1 : 2;
  };
  const store::DiskRecord* found = nullptr;
  for (const auto& disk : records) {
    const bool same = disk.volume_id.empty() ? disk.path == path : disk.volume_id == volume_id;
    if (same && disk.uuid != except && (!found || weight(disk) > weight(*found))) found = &disk;
  }
  return found;
}

}  // namespace

Result<std::uint64_t> base_generation(store::OwnershipStore& store, std::vector<store::DiskRecord>& disks) {
  const auto records = store.disks();
  if (!records) return records.error();
  std::uint64_t base = 0;
  for (auto& disk : disks) {
    // Another volume under the same path has nothing to do with the record.
    const auto* known = on_record(*records, disk.path, disk.volume_id, {});
    if (!known) {
      auto fresh = filter::random_uuid();
      if (!fresh) return std::move(fresh).error();
      disk.uuid = filter::to_text(*fresh);
      continue;
    }
    const auto& record = *known;
    if (record.holding != Holding::owned)
      return make_error(Errc::busy, fmt::format("{} is not this host's to move: {}", disk.path, record.reason), 0,
                        "see migrate-ctl own " + disk.path);
    disk.uuid = record.uuid;
    disk.generation = record.generation;
    disk.tracker = record.tracker;
    base = std::max(base, record.generation);
  }
  return base;
}

Status may_take_in(store::OwnershipStore& store, const PrepareRequest& request) {
  const auto records = store.disks();
  if (!records) return records.error();
  for (const auto& disk : request.disks) {
    if (disk.role == "scratch") continue;
    auto same_disk = store.by_uuid(disk.uuid);
    if (!same_disk) return std::move(same_disk).error();
    if (*same_disk) {
      const auto& record = **same_disk;
      const bool free = record.holding == Holding::given || record.holding == Holding::revoked;
      if (!free)
        return make_error(Errc::busy, fmt::format("this host has a claim of its own on {} ({})", disk.path, record.reason),
                          0, "see migrate-ctl own on both hosts; one of them is mistaken");
      // What came in and was called off may be offered under the same generation again.
      auto earlier = store.session(record.session);
      if (!earlier) return std::move(earlier).error();
      const bool called_off = *earlier && !(*earlier)->outgoing;
      if (record.generation > request.generation || (record.generation == request.generation && !called_off))
        return make_error(Errc::busy,
                          fmt::format("this host knows {} as generation {}, the source offers {}: the source's copy is old",
                                      disk.path, record.generation, request.generation),
                          0, "see migrate-ctl own on both hosts before anything else");
    }
    const auto volume = volume::identify(disk.path);
    if (!volume) continue;  // it is to be made
    const auto* other = on_record(*records, disk.path, volume->id, disk.uuid);
    if (other && other->holding != Holding::revoked)
      return make_error(Errc::busy, fmt::format("{} holds another disk ({})", disk.path, other->reason), 0,
                        "free it with migrate-ctl release " + other->path + ", or use another volume");
  }
  return ok_status();
}

void wake_old_copies(store::OwnershipStore& store, const PrepareRequest& request) {
  for (const auto& disk : request.disks) {
    auto known = store.by_uuid(disk.uuid);
    if (!known || !*known || (*known)->holding != Holding::given || volume::identify((*known)->path)) continue;
    if (auto woken = wake_barred(**known); !woken) spdlog::warn("{}", woken.error().message());
  }
}

}  // namespace ferry::daemon
