// SPDX-License-Identifier: GPL-2.0-or-later
#include "incoming.h"

#include <optional>

#include "daemon.h"
#include "world.h"

namespace ferry::sim {

using T = migration::DestinationEventType;

namespace {

std::optional<T> asked_by(Say say) {
  switch (say) {
    case Say::prepare: return T::prepare;
    case Say::close_gate: return T::close_gate;
    case Say::ready_asked: return T::ready_asked;
    case Say::grant: return T::granted;
    case Say::revoke: return T::revoke_asked;
    case Say::give_back: return T::return_asked;
    case Say::digests_asked: return T::digests_asked;
    case Say::finish: return T::finish_asked;
    case Say::abort: return T::abort_asked;
    default: return std::nullopt;
  }
}

std::optional<Say> say_of(std::string_view what) {
  for (const Say say : {Say::prepared, Say::ready, Say::opened, Say::revoked, Say::returned, Say::digests,
                        Say::finished, Say::aborted})
    if (what == say_name(say)) return say;
  return std::nullopt;
}

std::optional<Record> old_copy(const World& world, unsigned host) {
  const auto& record = world.hosts[host].records.get();
  return record && record->holding == store::Holding::given ? record : std::nullopt;
}

}  // namespace

Incoming::Incoming(World& world, unsigned host_id, const Message& prepare, std::uint32_t session_id,
                   std::uint32_t connection)
    : host(host_id), session(session_id), base(prepare.base), world_(world), connection_(connection),
      disks(world, *this, prepare, old_copy(world, host_id)),
      ledger(world, host_id, {session_id, prepare.base, false, false, prepare.keep, [this] { return disks.keeps(); }}, *this),
      machine({disks, *this, ledger, [this](migration::Duration d) { post({T::patience_over}, d.count()); },
               [this](const std::string& line) { world_.trace(host, "s{} destination: {}", session, line); }}) {}

void Incoming::post(const Signal& signal, Time delay) {
  world_.schedule.after(delay, &world_.hosts[host].daemon_life, [this, signal] { handle(signal); });
}

void Incoming::handle(const Signal& signal) {
  Host& here = world_.hosts[host];
  if (world_.schedule.now() < here.hung_until) return post(signal, here.hung_until - world_.schedule.now());
  // A source that gives up wants an answer, also when there is nothing left to take back.
  if (machine.ended() && signal.type == T::abort_asked) return answer("aborted");
  if (machine.ended() || !world_.point(host, migration::event_name(signal.type).data())) return;
  migration::DestinationEvent event{signal.type};
  if (signal.has_error) event.error = make_error(signal.code, signal.what);
  machine.handle(event);
  if (machine.ended() && !closed_) ended();
}

void Incoming::ended() {
  closed_ = true;
  world_.trace(host, "s{} destination ended: {}{}", session, migration::state_name(machine.state()),
               machine.error() ? " (" + machine.error()->what + ")" : "");
  // What was asked and not answered is answered from the record.
  for (const auto connection : questions_)
    if (world_.links.is_open(connection, host))
      world_.hosts[host].daemon->answer_from_record(connection, session, base, Say::revoke);
  questions_.clear();
}

void Incoming::recorded(bool went_well) {
  if (went_well) return post({T::recorded});
  post({T::failed, true, Errc::io, "the record was not written"});
}

void Incoming::answer(std::string_view what) {
  if (!world_.point(host, what.data())) return;
  const auto say = say_of(what);
  if (!say) return world_.violate("the destination gives an answer that nobody knows");
  if (*say == Say::opened || *say == Say::revoked || *say == Say::returned) std::erase(questions_, connection_);
  Message message;
  message.say = *say;
  message.equal = disks.digests_equal();
  message.has = disks.has();
  if (world_.links.is_open(connection_, host)) world_.links.send(connection_, host, message);
}

void Incoming::refuse(const Error& error) {
  if (!world_.point(host, "error")) return;
  std::erase(questions_, connection_);
  Message message;
  message.say = Say::error;
  message.code = error.code;
  if (world_.links.is_open(connection_, host)) world_.links.send(connection_, host, message);
}

void Incoming::receive(std::uint32_t connection, const Message& message) {
  if (machine.ended()) return world_.hosts[host].daemon->answer_from_record(connection, session, base, message.say);
  // The newest connection counts; numbers grow.
  if (connection > connection_ && world_.links.at(connection).purpose == Purpose::ask) {
    connection_ = connection;
    post({T::link_back});
  }
  if (connection != connection_ && message.say == Say::grant) world_.saw(Seen::late_grant);
  if (message.say == Say::revoke) questions_.push_back(connection);
  if (const auto asked = asked_by(message.say)) post({*asked});
}

void Incoming::connection_lost(std::uint32_t connection) {
  std::erase(questions_, connection);
  if (connection == connection_) post({T::link_lost, true, Errc::peer_unreachable, "the link broke"});
}

}  // namespace ferry::sim
