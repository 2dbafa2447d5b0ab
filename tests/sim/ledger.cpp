// SPDX-License-Identifier: GPL-2.0-or-later
#include "ledger.h"

#include <algorithm>

#include "world.h"

namespace ferry::sim {

using store::Holding;

Ledger::Ledger(World& world, unsigned host, Session session, Owner& owner)
    : world_(world), owner_(owner), host_(host), session_(std::move(session)), granted_(session_.granted) {
  const auto& record = world.hosts[host].records.get();
  old_copy_ = !session_.outgoing && record && record->holding == Holding::given;
  created_ = old_copy_ && record->created;
}

Record Ledger::claim(Holding holding) {
  Record record;
  record.holding = holding;
  record.session = session_.id;
  record.base = session_.base;
  record.outgoing = session_.outgoing;
  record.digest = digest_;
  if (session_.outgoing) {
    // Whether it reached the disk or not: it may have.
    granted_ = granted_ || holding == Holding::granting;
    record.generation = holding == Holding::moving ? session_.base
                        : holding == Holding::owned
                            ? (granted_ ? migration::reclaimed_generation(session_.base) : session_.base)
                            : migration::granted_generation(session_.base);
    if (holding == Holding::moving || holding == Holding::owned) record.tracker = tracker_;
    return record;
  }
  if (holding == Holding::receiving && !world_.hosts[host_].volumes_exist) created_ = true;
  record.created = created_;
  record.generation = holding == Holding::given ? migration::reclaimed_generation(session_.base)
                                                : migration::granted_generation(session_.base);
  if (holding == Holding::receiving || holding == Holding::prepared) record.kept = created_ && session_.keep;
  if (holding == Holding::owned) record.tracker = world_.hosts[host_].volumes[0].tracker;
  if (holding == Holding::revoked) {
    // Closed remains a volume with an older copy of the disks, and one whose copy is kept to go on with.
    const bool keeps = session_.keeps();
    if (keeps || (old_copy_ && !created_)) record.holding = Holding::given;
    record.kept = created_ && keeps;
  }
  return record;
}

bool Ledger::answers_early(Holding holding) const {
  return (world_.mutated(Mutation::open_before_record) && !session_.outgoing && holding == Holding::owned) ||
         (world_.mutated(Mutation::grant_before_record) && holding == Holding::granting) ||
         (world_.mutated(Mutation::revoked_without_record) && !session_.outgoing && holding == Holding::revoked);
}

void Ledger::record(Holding holding) {
  if (!world_.point(host_, store::holding_name(holding).data())) return;
  const Record record = claim(holding);
  const bool fails = world_.fails(host_, "record");
  const bool durable = !fails || world_.random.chance(50);
  // A claim that failed may stand all the same: that is named to the operator, and the next start puts it right.
  if (fails && holding != Holding::owned) world_.restart_wanted[host_] = true;
  const Life* life = &world_.hosts[host_].daemon_life;
  const bool early = answers_early(holding);
  Time commit = world_.random.between(200 * kMicrosecond, 3 * kMillisecond);
  if (early) commit += world_.random.between(100 * kMillisecond, 3 * kSecond);
  Time& busy_until = world_.hosts[host_].store_busy_until;
  commit = std::max(commit, busy_until - world_.schedule.now());
  busy_until = world_.schedule.now() + commit;
  world_.schedule.after(commit, life, [this, record, durable, fails, early] {
    bool accepted = durable;
    if (durable) {
      accepted = world_.hosts[host_].records.put(record);
      if (accepted && !session_.outgoing && record.holding == Holding::owned) world_.checker.handed_over(host_, session_.id);
      world_.trace(host_, "record: s{} {} of generation {}{}", session_.id, store::holding_name(record.holding),
                   record.generation, accepted ? "" : " REFUSED");
    }
    if (early) return;
    const bool good = accepted && !fails;
    world_.schedule.after(world_.random.between(10 * kMicrosecond, kMillisecond), &world_.hosts[host_].daemon_life,
                          [this, good] { owner_.recorded(good); });
  });
  if (early) world_.schedule.after(100 * kMicrosecond, life, [this] { owner_.recorded(true); });
}

}  // namespace ferry::sim
