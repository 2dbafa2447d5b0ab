// SPDX-License-Identifier: GPL-2.0-or-later
#include "source_peer.h"

#include "outgoing.h"
#include "world.h"

namespace ferry::sim {

using T = migration::SourceEventType;

void SourcePeer::connect() {
  if (!world_.point(job_.host, "connect")) return;
  world_.schedule.after(world_.links.latency(), &world_.hosts[job_.host].daemon_life, [this] {
    if (!world_.links.reachable() || world_.fails(job_.host, "connect"))
      return job_.post(0, Signal{T::failed}.error(Errc::peer_unreachable, "cannot connect").step(T::connected));
    control_ = world_.links.open(Purpose::control, job_.host, job_.session);
    job_.post(0, Signal{T::connected});
  });
}

void SourcePeer::say(Say say, const char* name) {
  if (!world_.point(job_.host, name)) return;
  Message message;
  message.say = say;
  message.base = job_.base;
  message.keep = job_.keep;
  if (job_.follower != 0) message.changes_since = job_.base;
  if (world_.links.is_open(control_, job_.host)) world_.links.send(control_, job_.host, message);
}

void SourcePeer::prepare() {
  due_ = T::peer_prepared;
  say(Say::prepare, "ask prepare");
}
void SourcePeer::close_gate() { say(Say::close_gate, "ask close_gate"); }
void SourcePeer::ask_ready() {
  due_ = T::peer_ready;
  say(Say::ready_asked, "ask ready");
}
void SourcePeer::grant() {
  due_ = T::peer_opened;
  say(Say::grant, "grant");
}
void SourcePeer::ask_digests() {
  due_ = T::peer_digests;
  say(Say::digests_asked, "ask digests");
}
void SourcePeer::finish() {
  due_ = T::peer_finished;
  say(Say::finish, "ask finish");
}
void SourcePeer::abort() {
  due_ = T::peer_aborted;
  say(Say::abort, "ask abort");
}

void SourcePeer::revoke() {
  if (!world_.point(job_.host, "ask revoke")) return;
  question_ = Say::revoke;
  asking_ = true;
  if (world_.mutated(Mutation::unfence_without_revoke)) return job_.post(0, Signal{T::peer_revoked});
  ask_again(world_.links.latency());
}

void SourcePeer::ask_return() {
  if (!world_.point(job_.host, "ask return")) return;
  question_ = Say::give_back;
  asking_ = true;
  if (world_.mutated(Mutation::resume_before_reclaim)) {
    for (unsigned disk = 0; disk < kDisks; ++disk) world_.set_filter(job_.host, disk, Filter::tracking);
    world_.libvirt.resume_if_paused(job_.host);
  }
  ask_again(world_.links.latency());
}

void SourcePeer::ask_again(Time after) {
  ++asks_;
  const std::uint32_t mine = asks_;
  world_.schedule.after(after, &world_.hosts[job_.host].daemon_life, [this, mine] {
    if (mine == asks_ && asking_) ask();
  });
}

void SourcePeer::ask() {
  if (!world_.links.reachable()) return ask_again(world_.random.between(100 * kMillisecond, 3 * kSecond));
  asking_over_ = world_.links.open(Purpose::ask, job_.host, job_.session);
  Message message;
  message.say = question_;
  message.base = job_.base;
  world_.links.send(asking_over_, job_.host, message);
  if (world_.ending ? false : world_.random.chance(10)) ask_again(kMillisecond);  // impatient: asks twice
}

// From now on the connection that brought the answer is the control connection.
void SourcePeer::answered() {
  asking_ = false;
  ++asks_;
  if (asking_over_ == kNoConnection) return;
  control_ = asking_over_;
  asking_over_ = kNoConnection;
}

void SourcePeer::receive(std::uint32_t connection, const Message& message) {
  const bool to_question = connection != control_;
  switch (message.say) {
    case Say::prepared:
      has_ = message.has;
      return job_.post(0, Signal{T::peer_prepared});
    case Say::ready:
      return job_.post(0, Signal{T::peer_ready});
    case Say::opened:
      if (to_question && question_ == Say::revoke) answered();
      return job_.post(0, Signal{T::peer_opened});
    case Say::revoked:
      if (to_question) answered();
      return job_.post(0, Signal{T::peer_revoked});
    case Say::returned:
      if (to_question) answered();
      return job_.post(0, Signal{T::peer_returned});
    case Say::unknown:
      job_.post(0, Signal{T::peer_unknown}.error(Errc::owner_unknown, "the peer has no record of it"));
      return ask_again(10 * kSecond);
    case Say::digests:
      digests_equal_ = message.equal;
      return job_.post(0, Signal{T::peer_digests});
    case Say::finished:
      return job_.post(0, Signal{T::peer_finished});
    case Say::aborted:
      return job_.post(0, Signal{T::peer_aborted});
    case Say::error:
      return on_error(connection, message);
    default:
      return;
  }
}

void SourcePeer::on_error(std::uint32_t connection, const Message& message) {
  if (connection != control_ || asking_) {
    if (!asking_) return;
    // "Busy" is the destination's no. Anything else only means that it could not tell now.
    if (question_ == Say::give_back && message.code == Errc::busy) {
      answered();
      return job_.post(0, Signal{T::return_refused}.error(message.code, "the peer keeps the disks"));
    }
    return ask_again(world_.random.between(100 * kMillisecond, 2 * kSecond));
  }
  job_.post(0, Signal{T::failed}.error(message.code, "the peer said no").step(due_));
}

void SourcePeer::connection_lost(std::uint32_t connection) {
  if (connection == asking_over_ && asking_) {
    asking_over_ = kNoConnection;
    return ask_again(world_.random.between(50 * kMillisecond, 2 * kSecond));
  }
  if (connection == control_) job_.post(0, Signal{T::link_lost}.error(Errc::peer_unreachable, "the link broke"));
}

void SourcePeer::close() {
  asking_ = false;
  ++asks_;
  world_.links.close(control_, job_.host);
  world_.links.close(asking_over_, job_.host);
}

}  // namespace ferry::sim
