// SPDX-License-Identifier: GPL-2.0-or-later
#include "ledger.h"

#include <algorithm>

#include "world.h"

namespace ferry::sim {

using store::Holding;

Ledger::Ledger(World& world, unsigned host, std::uint32_t session, std::uint64_t base, bool outgoing, bool granted,
               Owner& owner)
    : world_(world), owner_(owner), host_(host), session_(session), base_(base), outgoing_(outgoing),
      granted_(granted) {
  const auto& record = world.hosts[host].records.get();
  old_copy_ = !outgoing && record && record->holding == Holding::given;
}

Record Ledger::claim(Holding holding) {
  Record record;
  record.holding = holding;
  record.session = session_;
  record.base = base_;
  record.outgoing = outgoing_;
  if (outgoing_) {
    // Whether it reached the disk or not: it may have.
    granted_ = granted_ || holding == Holding::granting;
    record.generation = holding == Holding::moving ? base_
                        : holding == Holding::owned
                            ? (granted_ ? migration::reclaimed_generation(base_) : base_)
                            : migration::granted_generation(base_);
  } else {
    if (holding == Holding::receiving) created_ = !world_.hosts[host_].volumes_exist;
    record.created = created_;
    // Volumes with an older copy of the disks remain closed when the migration is called off.
    if (holding == Holding::revoked && old_copy_) record.holding = Holding::given;
    record.generation = holding == Holding::given ? migration::reclaimed_generation(base_)
                                                  : migration::granted_generation(base_);
  }
  return record;
}

bool Ledger::answers_early(Holding holding) const {
  return (world_.mutated(Mutation::open_before_record) && !outgoing_ && holding == Holding::owned) ||
         (world_.mutated(Mutation::grant_before_record) && holding == Holding::granting) ||
         (world_.mutated(Mutation::revoked_without_record) && !outgoing_ && holding == Holding::revoked);
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
      if (accepted && !outgoing_ && record.holding == Holding::owned) world_.checker.handed_over(host_, session_);
      world_.trace(host_, "record: s{} {} of generation {}{}", session_, store::holding_name(record.holding),
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
