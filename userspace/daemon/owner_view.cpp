// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/owner_view.h"

#include <fmt/format.h>

namespace ferry::daemon {

using api::DiskOwner;
using store::DiskRecord;
using store::Holding;
using store::SessionRecord;

namespace {

api::Time time_of(const DiskRecord& disk) { return api::Time{std::chrono::seconds(disk.changed_at)}; }

// Only what this host can know by itself: the peer may be further already, and then it is the peer that knows.
void name_owner(const std::string& host_name, const SessionRecord& session, const DiskRecord& disk,
                api::OwnedDisk& out) {
  const auto peer = peer_name(session);
  const auto owned_by = [&](DiskOwner owner, const std::string& host, std::string note = {}) {
    out.owner = owner;
    out.owner_host = host;
    out.owner_note = std::move(note);
  };
  switch (disk.holding) {
    case Holding::moving:
    case Holding::owned: return owned_by(DiskOwner::this_host, host_name);
    case Holding::given:
    case Holding::revoked: return owned_by(DiskOwner::peer, peer);
    case Holding::receiving: return owned_by(DiskOwner::peer, peer, "the copy here is incomplete");
    case Holding::granting:
      out.owner_note = "granted to " + peer + ", whose answer is missing";
      return;
    case Holding::prepared:
      out.owner_note = peer + "'s, unless its grant is on the way";
      return;
  }
}

}  // namespace

std::string peer_name(const SessionRecord& session) {
  if (!session.peer_host.empty()) return session.peer_host;
  return session.peer.empty() ? "the other host" : session.peer;
}

std::string filter_word(const filter::AttachedVolume& volume) {
  return volume.tracker ? filter::state_name(volume.tracker->state) : "unknown";
}

api::OwnedDisk view_of(const std::string& host_name, const SessionRecord& session, const DiskRecord& disk,
                       const VolumeView& now) {
  api::OwnedDisk out;
  out.vm = session.vm;
  out.target = disk.target;
  out.path = disk.path;
  out.role = api::role_from_name(disk.role).value_or(api::DiskRole::data);
  out.size_bytes = disk.size_bytes;
  out.uuid = disk.uuid;
  out.generation = disk.generation;
  out.holding = std::string(store::holding_name(disk.holding));
  name_owner(host_name, session, disk, out);
  out.session = disk.session;
  out.direction = session.outgoing ? api::Direction::out : api::Direction::in;
  out.peer = session.peer;
  out.peer_host = session.peer_host;
  out.since = time_of(disk);
  out.reason = disk.reason;
  out.verified = disk.verified;
  out.volume = now.presence;
  out.filter = now.filter;
  out.must_be_barred = store::is_barred(disk.holding);
  out.barred = now.closed;
  return out;
}

Error force_risk(const SessionRecord& session, const DiskRecord& disk, const std::string& command) {
  const auto peer = peer_name(session);
  const auto since = api::format_time(time_of(disk));
  const std::string believed =
      disk.holding == Holding::given
          ? fmt::format("the disks of {} belong to {}, on record since {}; this host has only what was in them at the "
                        "hand-over",
                        session.vm, peer, since)
          : fmt::format("the disks of {} were granted to {}, on record since {}, and whether {} took them is not known",
                        session.vm, peer, since, peer);
  return make_error(
      Errc::usage,
      fmt::format("{}. To take them by force loses everything that was written on {} after it; and if {} still lives, "
                  "two hosts write to copies of the same disks, which nothing can join again",
                  believed, peer, peer),
      0,
      fmt::format("make sure that {} is off and stays off (its power, not only its network), then: {} --peer-is-dead",
                  peer, command));
}

Error force_refusal(const SessionRecord& session, const DiskRecord& disk) {
  const auto peer = peer_name(session);
  const auto refused = [&](const std::string& why, const std::string& hint) {
    return make_error(Errc::busy, fmt::format("the disks of {} cannot be taken by force: {}", session.vm, why), 0, hint);
  };
  const std::string start_there = fmt::format("what {} has is whole: start the VM there", peer);
  switch (disk.holding) {
    case Holding::given:
      return refused("they were being filled from " + peer + " or went back to it, so they may be incomplete here",
                     start_there);
    case Holding::receiving:
      return refused("they are incomplete here, " + peer + " was still filling them", start_there);
    case Holding::prepared:
      return refused(peer + " has not granted them, and may run the VM", "ask there: migrate-ctl own " + session.vm);
    case Holding::revoked:
      return refused("this host has promised " + peer + " never to open this copy, and " + peer + " relies on it",
                     start_there + "; migrate-ctl release frees the volumes here");
    default: return refused("they are " + std::string(store::holding_name(disk.holding)), "see migrate-ctl own");
  }
}

Error release_refusal(const SessionRecord& session, const DiskRecord& disk) {
  const auto peer = peer_name(session);
  switch (disk.holding) {
    case Holding::moving:
    case Holding::owned:
      return make_error(Errc::busy, "the disks of " + session.vm + " belong to this host: there is no fence to take off",
                        0,
                        "a volume that is closed all the same: migrate-ctl own --force " + disk.path +
                            "; a filter that tracks: migrate-ctl detach " + disk.path);
    case Holding::granting:
      return make_error(Errc::owner_unknown,
                        fmt::format("whether {} took the disks of {} is not known: what is here may be the only copy",
                                    peer, session.vm),
                        0, "see migrate-ctl own " + session.vm + ", and its --force if " + peer + " is dead for good");
    default:
      return make_error(Errc::busy, fmt::format("the disks of {} are coming in from {}", session.vm, peer), 0,
                        "to stop that: migrate-ctl abort " + session.vm + ", on " + peer);
  }
}

}  // namespace ferry::daemon
