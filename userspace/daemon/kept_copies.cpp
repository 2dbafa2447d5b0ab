// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/kept_copies.h"

#include <chrono>

#include "base/log.h"
#include "daemon/bars.h"
#include "daemon/peer_link.h"
#include "volume/volume.h"
#include "wire/control.h"

namespace ferry::daemon {
namespace {

constexpr auto kLookEvery = std::chrono::minutes(1);

}  // namespace

bool is_kept_copy(const store::DiskRecord& disk) {
  return disk.holding == store::Holding::given && disk.created && disk.expires_at != 0;
}

Status remove_copy(const store::DiskRecord& disk) {
  // A reboot leaves closed volumes inactive.
  if (!volume::identify(disk.path))
    if (auto woken = wake_barred(disk); !woken) spdlog::debug("{}", woken.error().message());
  const auto volume = volume::identify(disk.path);
  if (!volume || volume->id != disk.volume_id) return ok_status();  // gone, or another one by now
  FERRY_TRY(remove_closed(disk.path));
  spdlog::info("{}: {}: the copy that was kept is removed", disk.session, disk.path);
  return ok_status();
}

Status remove_kept_copy(store::OwnershipStore& store, const store::DiskRecord& disk) {
  auto known = store.by_uuid(disk.uuid);
  if (!known) return std::move(known).error();
  if (!*known) return ok_status();
  if (!is_kept_copy(**known) || (*known)->session != disk.session)
    return make_error(Errc::busy, disk.path + " is needed again: " + (*known)->reason);
  FERRY_TRY(remove_copy(disk));
  // What stays is the promise: the other host may not have asked yet who owns the disk.
  auto session = store.session(disk.session);
  if (!session) return std::move(session).error();
  if (!*session) return store.forget({disk.uuid});
  store::DiskRecord gone = **known;
  gone.holding = store::Holding::revoked;
  gone.expires_at = 0;
  gone.reason = "the copy that was kept of it is removed";
  return store.put(**session, {gone});
}

Status ask_to_discard(const Config& config, const store::OwnershipStore& store, const std::string& destination,
                      const std::string& job) {
  auto peer = api::parse_host_port(destination);
  if (!peer) return std::move(peer).error();
  auto disks = store.disks();
  if (!disks) return std::move(disks).error();
  OwnerQuestion question{"discard", 0, {}};
  for (const auto& disk : *disks)
    if (disk.session == job || disk.session.starts_with(job + "-")) question.uuids.push_back(disk.uuid);
  auto channel = open_connection(config, *peer, Purpose::owner, job);
  if (!channel) return std::move(channel).error();
  FERRY_TRY(wire::send_control(**channel, to_json(question)));
  auto answer = wire::receive_control(**channel);
  if (!answer) return std::move(answer).error();
  if (type_of(*answer) == "discarded") return ok_status();
  return error_from(*answer);
}

Json answer_discard(store::OwnershipStore& store, const Json& message) {
  auto question = owner_question_from(message, "discard");
  if (!question) return to_json(question.error());
  for (const auto& uuid : question->uuids) {
    auto disk = store.by_uuid(uuid);
    if (!disk) return to_json(disk.error());
    if (!*disk || !is_kept_copy(**disk)) continue;
    if (auto removed = remove_kept_copy(store, **disk); !removed) return to_json(removed.error());
  }
  return plain_message("discarded");
}

KeptCopies::KeptCopies(ControlLoop& loop, store::OwnershipStore& store) : loop_(loop), store_(store) { look(); }

KeptCopies::~KeptCopies() {
  loop_.call([this] {
    alive_.reset();
    return true;
  });
}

void KeptCopies::look() {
  worker_.post([this] {
    auto disks = store_.disks();
    if (!disks) return spdlog::error("{}", disks.error().message());
    for (const auto& disk : *disks)
      if (is_kept_copy(disk) && disk.expires_at <= store::unix_now())
        if (auto removed = remove_kept_copy(store_, disk); !removed) spdlog::warn("{}", removed.error().message());
  });
  loop_.post_after(kLookEvery, [this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) look();
  });
}

}  // namespace ferry::daemon
