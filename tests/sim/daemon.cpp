// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon.h"

#include "world.h"

namespace ferry::sim {

using store::Holding;

Outgoing* Daemon::outgoing(std::uint32_t session) {
  for (auto& job : out_)
    if (job->session == session) return job.get();
  return nullptr;
}

Incoming* Daemon::incoming(std::uint32_t session) {
  for (auto& job : in_)
    if (job->session == session) return job.get();
  return nullptr;
}

bool Daemon::busy() const {
  if (pending_ > 0) return true;
  if (!out_.empty() && !out_.back()->machine.ended()) return true;
  return !in_.empty() && !in_.back()->machine.ended();
}

// A start after a crash, a stop or a boot. Volumes that are not this host's are closed before anything else.
void Daemon::start() {
  world_.bar(host_);
  if (const auto& record = world_.hosts[host_].records.get()) recover(*record);
}

void Daemon::recover(const Record& record) {
  const bool forgets = world_.mutated(Mutation::restart_forgets_grant) && record.holding == Holding::granting;
  switch (forgets ? Holding::moving : record.holding) {
    case Holding::moving:
      world_.saw(Seen::taken_back_at_start);
      return take_back_as_source(record);
    case Holding::granting:
      world_.saw(Seen::recovered);
      out_.push_back(std::make_unique<Outgoing>(world_, host_, record.session, record.base, true));
      return out_.back()->post(0, Signal{migration::SourceEventType::recover});
    case Holding::receiving:
    case Holding::prepared:
      world_.saw(Seen::revoked_at_start);
      return take_back_as_destination(record);
    case Holding::revoked:
      return discard(record);
    case Holding::owned:
      follow_or_open();
      return world_.libvirt.resume_if_paused(host_);
    case Holding::given:
      if (!record.outgoing) discard(record);  // returned to its source
      return;
  }
}

// Whatever of ours is still in the volumes comes out, but for the filter that notes what the way back will take.
void Daemon::follow_or_open() {
  Host& host = world_.hosts[host_];
  for (unsigned disk = 0; disk < kDisks; ++disk)
    if (!follows(*host.records.get(), host.volumes[disk])) world_.set_filter(host_, disk, Filter::none);
}

void Daemon::put_later(Record record, void (Daemon::*then)(Record)) {
  ++pending_;
  world_.schedule.after(world_.random.between(kMillisecond, 5 * kMillisecond), &world_.hosts[host_].daemon_life,
                        [this, record, then] {
                          --pending_;
                          if (!world_.point(host_, "record at start")) return;
                          world_.hosts[host_].records.put(record);
                          world_.trace(host_, "record: s{} {} of generation {}", record.session,
                                       store::holding_name(record.holding), record.generation);
                          (this->*then)(record);
                        });
}

// Nothing was granted: the disks are this host's, and the guest goes on.
void Daemon::take_back_as_source(Record record) {
  record.holding = Holding::owned;
  record.tracker = 0;
  put_later(record, &Daemon::owned_again);
}

void Daemon::owned_again(Record) {
  for (unsigned disk = 0; disk < kDisks; ++disk) world_.set_filter(host_, disk, Filter::none);
  world_.libvirt.resume_if_paused(host_);
}

void Daemon::take_back_as_destination(Record record) {
  // Half of it is overwritten, and what it was before (plain, or an old copy) is not on record: it stays closed.
  // Or it was made for the migration, which will go on with it.
  record.holding = called_off(record);
  put_later(record, &Daemon::revoked_for_good);
}

void Daemon::revoked_for_good(Record record) { discard(record); }

void Daemon::discard(const Record& record) {
  Host& host = world_.hosts[host_];
  if (record.created && !record.kept && host.volumes_exist) {
    return world_.remove_volumes(host_);
  }
  // Incomplete or old contents stay closed.
  for (unsigned disk = 0; disk < kDisks && host.volumes_exist; ++disk) world_.set_filter(host_, disk, Filter::fenced);
}

void Daemon::remove_kept() {
  const auto& record = world_.hosts[host_].records.get();
  if (busy() || !record || record->holding != Holding::given || !record->kept) return;
  Record removed = *record;
  removed.holding = Holding::revoked;
  removed.kept = false;
  world_.saw(Seen::kept_removed);
  put_later(removed, &Daemon::revoked_for_good);
}

bool Daemon::migrate() {
  Host& host = world_.hosts[host_];
  if (busy() || !world_.claims(host_) || !host.guest || host.guest->state != GuestState::running) return false;
  if (!world_.writable(host_)) return false;
  const auto& record = host.records.get();
  const std::uint64_t base = record ? record->generation : 1;
  const std::uint32_t session = ++world_.sessions;
  world_.trace(host_, "=== session s{} begins", session);
  out_.push_back(std::make_unique<Outgoing>(world_, host_, session, base, false));
  bool followed = record && record->holding == Holding::owned;
  for (const auto& volume : host.volumes)
    followed = followed && (follows(*record, volume) || world_.mutated(Mutation::any_map_trusted));
  out_.back()->plan(followed ? record->tracker : 0, world_.random.chance(70));
  out_.back()->post(0, Signal{migration::SourceEventType::start});
  return true;
}

void Daemon::shut_down() {
  for (auto& job : out_)
    if (!job->machine.ended()) job->post(0, Signal{migration::SourceEventType::shut_down});
}

void Daemon::say(std::uint32_t connection, Say say, Errc code) {
  Message message;
  message.say = say;
  message.code = code;
  if (world_.links.is_open(connection, host_)) world_.links.send(connection, host_, message);
}

void Daemon::receive(std::uint32_t id, const Message& message) {
  const Connection& connection = world_.links.at(id);
  if (!world_.point(host_, say_name(message.say))) return;
  if (connection.dialer == host_) {
    auto* job = outgoing(connection.session);
    if (!job) return;
    return connection.purpose == Purpose::data ? job->disks.receive(id, message) : job->peer.receive(id, message);
  }
  auto* job = incoming(connection.session);
  if (connection.purpose == Purpose::data) {
    if (!job || !job->disks.receiving()) return world_.links.close(id, host_);
    if (message.say == Say::extent) return job->disks.take(message);
    if (message.say == Say::check) {
      if (!job->disks.differs(message)) return;
      Message answer = message;
      answer.say = Say::differs;
      return world_.links.send(id, host_, answer);
    }
    return world_.links.send(id, host_, message);  // end_round: all before it on this stream is written
  }
  if (job) return job->receive(id, message);
  if (message.say != Say::prepare) return answer_from_record(id, connection.session, message.base, message.say);
  if (busy() || world_.hosts[host_].guest || !may_take_in(message.base)) return say(id, Say::error, Errc::busy);
  in_.push_back(std::make_unique<Incoming>(world_, host_, message, connection.session, id));
  in_.back()->receive(id, message);
}

// Not what this host owns or has promised, and nothing older than what it knows.
bool Daemon::may_take_in(std::uint64_t base) const {
  const auto& record = world_.hosts[host_].records.get();
  if (!record) return true;
  if (record->holding != Holding::given && record->holding != Holding::revoked) return false;
  const auto offered = migration::granted_generation(base);
  return record->outgoing ? record->generation < offered : record->generation <= offered;
}

// A frame that is not the next one of an open stream belongs to an older connection or round.
void Daemon::duplicate(std::uint32_t id, const Message& message) {
  if (!world_.mutated(Mutation::late_duplicate_applied)) return world_.saw(Seen::duplicate_dropped);
  auto* job = latest_incoming();
  if (!job || !world_.hosts[host_].volumes_exist) return;
  world_.trace(host_, "a late block {}/{} of connection {} is applied to {}:{}", message.contents.low,
               message.contents.high, id, message.disk, message.block);
  world_.hosts[host_].volumes[message.disk].disk.write(message.block, message.contents);
}

void Daemon::connection_lost(std::uint32_t id) {
  const Connection& connection = world_.links.at(id);
  if (connection.dialer == host_) {
    auto* job = outgoing(connection.session);
    if (!job) return;
    return connection.purpose == Purpose::data ? job->disks.connection_lost(id) : job->peer.connection_lost(id);
  }
  if (connection.purpose == Purpose::data) return;
  if (auto* job = incoming(connection.session)) job->connection_lost(id);
}

// No machine remembers this session: what is on record counts. What is not decided is decided now.
void Daemon::answer_from_record(std::uint32_t id, std::uint32_t session, std::uint64_t base, Say question) {
  const auto& record = world_.hosts[host_].records.get();
  const auto fate = world_.hosts[host_].records.fate(session, migration::granted_generation(base));
  world_.saw(Seen::answered_from_record);
  switch (question) {
    case Say::grant:
      if (world_.mutated(Mutation::revoked_without_record) && fate == migration::GrantFate::open) {
        Record owned = *record;
        owned.holding = Holding::owned;
        world_.hosts[host_].records.put(owned);
        for (unsigned disk = 0; disk < kDisks; ++disk) world_.set_filter(host_, disk, Filter::none);
        return say(id, Say::opened);
      }
      return say(id, Say::error, Errc::protocol);
    case Say::revoke:
      break;
    case Say::give_back:
      if (world_.fails(host_, "reading the records")) return say(id, Say::error, Errc::io);
      if (fate == migration::GrantFate::returned) return say(id, Say::returned);
      if (fate == migration::GrantFate::unknown) return say(id, Say::unknown);
      // Whether the guest has written since cannot be told after a restart: what was opened stays here.
      return say(id, Say::error, Errc::busy);
    case Say::finish:
      return say(id, Say::finished);
    case Say::abort:
      return say(id, Say::aborted);
    default:
      return say(id, Say::error, Errc::protocol);
  }
  switch (fate) {
    case migration::GrantFate::unknown: return say(id, Say::unknown);
    case migration::GrantFate::opened: return say(id, Say::opened);
    case migration::GrantFate::returned: return say(id, Say::returned);
    case migration::GrantFate::revoked: return say(id, Say::revoked);
    case migration::GrantFate::open: break;
  }
  // A machine that could not put it on record, or this daemon's start, has left it open.
  Record revoked = *record;
  revoked.holding = called_off(revoked);
  put_later(revoked, &Daemon::revoked_for_good);
  say(id, Say::error, Errc::timeout);  // asked again in a moment, it is on record
}

}  // namespace ferry::sim
