// SPDX-License-Identifier: GPL-2.0-or-later
// OwnershipModel, what may happen next: every outcome of every call under way, every message, every fault
// that is left.
#include <algorithm>

#include "ownership_model.h"
#include "ownership_names.h"

namespace ferry::sim {

using store::Holding;
using ST = migration::SourceEventType;
using DT = migration::DestinationEventType;

namespace {

Error an_error(Errc code = Errc::io) { return Error{code, "a step failed", 0, {}}; }

migration::SourceEvent source_failure(ST step) { return migration::failure_of(step, an_error()); }
migration::DestinationEvent destination_failure(Errc code = Errc::io) { return {DT::failed, an_error(code)}; }

std::uint8_t pop(std::uint8_t (&queue)[kQueue]) {
  const std::uint8_t first = queue[0];
  std::rotate(queue, queue + 1, queue + kQueue);
  queue[kQueue - 1] = 0;
  return first;
}

}  // namespace

template <typename F>
void OwnershipModel::step(const char* who, const char* what, F change, bool fault) {
  now_ = from_;
  broken_ = nullptr;
  change();
  emit(who, what, fault);
}

const std::vector<OwnershipStep>& OwnershipModel::successors(const OwnershipState& from) {
  out_.clear();
  from_ = from;
  device_steps();
  hypervisor_steps();
  for (unsigned n = 0; n < 2; ++n) {
    record_steps(n);
    guest_steps(n);
    wire_steps(n);
    life_steps(n);
  }
  ask_step();
  return out_;
}

void OwnershipModel::device_steps() {
  if (from_.power[0] == raw(Power::up)) source_calls();
  if (from_.power[1] == raw(Power::up)) destination_calls();
  if (from_.late_fence)
    step("a", "the fence closes, late", [&] {
      now_.late_fence = 0;
      now_.filter[0] = raw(Filter::fenced);
    });
  if (from_.filter[0] == raw(Filter::frozen) && from_.tricks > 0)
    step("a", "the watchdog ends the freeze", [&] {
      --now_.tricks;
      now_.filter[0] = raw(Filter::tracking);
    }, true);
}

void OwnershipModel::source_calls() {
  const auto doing = [&](std::uint8_t bit) { return from_.calls[0] & bit; };
  const auto done = [&](std::uint8_t bit) { now_.calls[0] &= static_cast<std::uint8_t>(~bit); };
  if (doing(kFence)) step("a", "the fence closes, if the freeze has held", [&] {
      done(kFence);
      if (mutation_ == Mutation::fence_after_grant) {
        now_.late_fence = 1;
        now_.filter[0] = raw(Filter::tracking);
        return to_source({ST::fenced});
      }
      if (now_.filter[0] != raw(Filter::frozen)) return to_source(source_failure(ST::fenced));
      now_.filter[0] = raw(Filter::fenced);
      to_source({ST::fenced});
    });
  if (doing(kThaw)) step("a", "writes pass again", [&] {
      done(kThaw);
      if (now_.filter[0] != raw(Filter::none)) now_.filter[0] = raw(Filter::tracking);
      to_source({ST::thawed});
    });
  if (doing(kDetach)) step("a", "the filter is out", [&] {
      done(kDetach);
      now_.filter[0] = raw(Filter::none);
      to_source({ST::detached});
    });
  if (doing(kLeave)) step("a", "handles are closed, the fence stays", [&] {
      done(kLeave);
      if (mutation_ == Mutation::fence_lost_on_leave) now_.filter[0] = raw(Filter::none);
      to_source({ST::detached});
    });
  if (doing(kDigest)) step("a", "digest is taken", [&] {
      done(kDigest);
      to_source({ST::digests_taken});
    });
}

void OwnershipModel::destination_calls() {
  const auto doing = [&](std::uint8_t bit) { return from_.calls[1] & bit; };
  const auto done = [&](std::uint8_t bit) { now_.calls[1] &= static_cast<std::uint8_t>(~bit); };
  if (doing(kFlush)) step("b", "flushed", [&] { done(kFlush), to_destination({DT::flushed}); });
  if (doing(kVerify)) step("b", "verified", [&] { done(kVerify), to_destination({DT::verified}); });
  if (doing(kOpen)) {
    step("b", "the gate is open", [&] {
      done(kOpen);
      now_.filter[1] = raw(Filter::tracking);
      to_destination({DT::opened});
    });
    if (from_.tricks > 0) step("b", "the gate does not open", [&] {
        done(kOpen);
        --now_.tricks;
        to_destination(destination_failure());
      }, true);
  }
  if (doing(kYield)) step("b", "looks for writes, and fences", [&] {
      done(kYield);
      if (now_.guest[1] == kIncoming) now_.guest[1] = 0;
      const bool touched = now_.guest[1] == kRunning || now_.newest == 2;
      if (touched && mutation_ != Mutation::return_unchecked) return to_destination(destination_failure(Errc::busy));
      now_.filter[1] = raw(Filter::fenced);
      to_destination({DT::yielded});
    });
  if (doing(kFinish)) step("b", "the filter is out", [&] {
      done(kFinish);
      now_.filter[1] = raw(Filter::none);
      to_destination({DT::cleaned});
    });
  if (doing(kDiscard)) step("b", "the volume is removed", [&] {
      done(kDiscard);
      now_.filter[1] = raw(Filter::none);
      now_.volume_there = 0;
      to_destination({DT::cleaned});
    });
}

void OwnershipModel::record_steps(unsigned host) {
  if (!from_.claim[host] || from_.power[host] != raw(Power::up)) return;
  const char* who = host ? "b" : "a";
  const auto holding = static_cast<Holding>(from_.claim[host] - 1);
  const auto stage = static_cast<Stage>(from_.claim_stage[host]);
  const auto tell = [&](bool well) {
    if (host == 0) return to_source(well ? migration::SourceEvent{ST::recorded} : source_failure(ST::recorded));
    to_destination(well ? migration::DestinationEvent{DT::recorded} : destination_failure());
  };
  const auto over = [&] { now_.claim[host] = now_.claim_stage[host] = 0; };
  if (stage == Stage::asked) {
    step(who, store::holding_name(holding).data(), [&] {
      now_.record[host] = coded(holding);
      now_.claim_stage[host] = raw(Stage::durable);
    });
    if (takes_early(host, holding)) step(who, "told of a record that is not durable", [&] {
        now_.claim_stage[host] = raw(Stage::told_early);
        tell(true);
      });
    if (from_.record_failures > 0)
      for (const bool stands : {false, true})
        step(who, stands ? "the record fails, and stands" : "the record fails", [&] {
          --now_.record_failures;
          if (stands) now_.record[host] = coded(holding);
          over();
          tell(false);
        }, true);
  }
  if (stage == Stage::durable) step(who, "told of the record", [&] { over(), tell(true); });
  if (stage == Stage::told_early) step(who, "the record is durable at last", [&] {
      now_.record[host] = coded(holding);
      over();
    });
}

void OwnershipModel::hypervisor_steps() {
  const auto finish = static_cast<Finish>(from_.finish);
  const bool both_up = from_.power[0] == raw(Power::up) && from_.power[1] == raw(Power::up);
  const auto arrives = [&] { now_.guest[1] = kRunning; };
  if (finish == Finish::forwarding || finish == Finish::orphaned) {
    if (from_.guest[1] == kIncoming && from_.power[1] == raw(Power::up)) {
      step("b", "Finish arrives, the guest runs", [&] {
        arrives();
        now_.finish = finish == Finish::orphaned ? raw(Finish::over) : raw(Finish::forwarded);
      });
      if (from_.tricks > 0) step("b", "Finish arrives, the guest does not start", [&] {
          --now_.tricks;
          now_.guest[1] = 0;
          now_.finish = finish == Finish::orphaned ? raw(Finish::over) : raw(Finish::held);
          if (finish == Finish::forwarding) now_.told |= kNotStarted;
        }, true);
    } else if (finish == Finish::forwarding && from_.guest[1] == kRunning) {
      step("b", "the guest runs there already", [&] { now_.finish = raw(Finish::forwarded); });
    }
    if (finish == Finish::orphaned) step("b", "Finish is lost", [&] { now_.finish = raw(Finish::over); });
    // Nobody can say within the time: after a crash or a broken link, whether or not it arrived.
    if (finish == Finish::forwarding && (!both_up || from_.guest[1] == 0 || from_.link_losses < bounds_.link_losses))
      step("a", "nobody can say whether the guest runs there", [&] {
        now_.finish = raw(Finish::held);
        now_.told |= kNotStarted;
      });
  }
  if (finish == Finish::forwarded) {
    step("a", "Finish is answered, the source's guest ends", [&] {
      now_.guest[0] = 0;
      now_.finish = raw(Finish::over);
      now_.told |= kDoneWell;
    });
    if (from_.link_losses < bounds_.link_losses) step("a", "the answer of Finish is lost for long", [&] {
        now_.finish = raw(Finish::held);
        now_.told |= kNotStarted;
      });
  }
  if (finish != Finish::over && finish != Finish::orphaned && from_.tricks > 0)
    step("a", "libvirt resumes the source's guest by itself", [&] {
      --now_.tricks;
      now_.finish = finish == Finish::forwarding ? raw(Finish::orphaned) : raw(Finish::over);
      if (now_.guest[0]) now_.guest[0] = kRunning;
      now_.told |= kDoneBadly;
    }, true);
  if (finish == Finish::over && from_.guest[1] == kIncoming)
    step("b", "libvirt ends the guest that waits", [&] { now_.guest[1] = 0; });
  if (finish == Finish::over && from_.guest[0] == kPaused && from_.crashes[0] < bounds_.crashes)
    step("a", "libvirt lets the guest go on", [&] { now_.guest[0] = kRunning; });
  if (from_.power[0] != raw(Power::up)) return;
  if (from_.told & kDoneWell) step("a", "hypervisor done", [&] {
      now_.told &= static_cast<std::uint8_t>(~kDoneWell);
      to_source({ST::hypervisor_done});
    });
  if (from_.told & kDoneBadly) step("a", "hypervisor done, with an error", [&] {
      now_.told &= static_cast<std::uint8_t>(~kDoneBadly);
      to_source({ST::hypervisor_done, an_error()});
    });
  if (from_.told & kNotStarted) step("a", "guest not started", [&] {
      now_.told &= static_cast<std::uint8_t>(~kNotStarted);
      to_source({ST::guest_not_started, an_error()});
    });
  if (from_.told & kRevokedForged) step("a", "takes the silence for revoked", [&] {
      now_.told &= static_cast<std::uint8_t>(~kRevokedForged);
      now_.asking = 0;
      to_source({ST::peer_revoked});
    });
}

void OwnershipModel::guest_steps(unsigned host) {
  const char* who = host ? "b" : "a";
  now_ = from_;
  if (from_.power[host] == raw(Power::off) || !passes(host)) return;
  if (from_.guest[host] == 0 && owns(host) && from_.finish == raw(Finish::over))
    step(who, "a guest is started from the disks", [&] {
      now_.guest[host] = kRunning;
      if (now_.newest == 2 - host) broken_ = "lost write: a guest starts from disks that are not the newest";
    });
  if (from_.guest[host] == kRunning && from_.newest != 1 + host)
    step(who, "a write of the guest is acknowledged", [&] {
      if (now_.newest == 2 - host) broken_ = "lost write: the guest writes to disks that are not the newest";
      now_.newest = static_cast<std::uint8_t>(1 + host);
    });
}

void OwnershipModel::wire_steps(unsigned n) {
  const Wire& w = from_.wire[n];
  for (unsigned side = 0; side < 2; ++side) {
    if (!w.open[side] || from_.power[side] != raw(Power::up)) continue;
    if (w.queue[side][0]) step(side ? "b" : "a", message_name(w.queue[side][0]), [&] {
        const std::uint8_t message = pop(now_.wire[n].queue[side]);
        side ? receive_at_destination(n, message) : receive_at_source(n, message);
      });
    if (w.broken) step(side ? "b" : "a", "sees that a connection is broken", [&] { notice(n, side); });
  }
  if (n == 0 && from_.link_losses > 0 && (from_.wire[0].open[0] || from_.wire[1].open[0]))
    step("-", "the link breaks", [&] {
      --now_.link_losses;
      for (auto& wire : now_.wire) wire.broken = wire.open[0] || wire.open[1];
    }, true);
}

void OwnershipModel::notice(unsigned n, unsigned side) {
  Wire& w = now_.wire[n];
  w.open[side] = 0;
  for (auto& place : w.queue[side]) place = 0;
  if (side == 1) {
    now_.waiting &= static_cast<std::uint8_t>(~(1u << n));
    if (now_.current != n + 1) return;
    now_.current = 0;
    return to_destination({DT::link_lost, an_error(Errc::peer_unreachable)});
  }
  if (now_.control != n + 1) return;
  now_.control = 0;
  to_source({ST::link_lost, an_error(Errc::peer_unreachable)});
}

// The question goes out over a new connection; older ones are hung up before. The destination may see that late.
void OwnershipModel::ask_step() {
  if (!from_.asking || from_.power[0] != raw(Power::up) || from_.power[1] != raw(Power::up)) return;
  for (unsigned n = 0; n < 2; ++n)
    if (from_.wire[n].asks && from_.wire[n].open[0] && from_.control != n + 1) return;
  for (unsigned n = 0; n < 2; ++n) {
    if (from_.wire[n].open[1]) continue;
    return step("a", from_.asking == coded(Say::revoke) ? "asks to revoke" : "asks for the disks back", [&] {
      const std::uint8_t question = now_.asking;
      close_all(0);
      now_.wire[n] = {};
      now_.wire[n].asks = now_.wire[n].open[0] = now_.wire[n].open[1] = 1;
      // The destination speaks over the newest connection that there is.
      now_.current = static_cast<std::uint8_t>(n + 1);
      to_destination({DT::link_back});
      send(n, 0, question);
    });
  }
}

void OwnershipModel::receive_at_source(unsigned n, std::uint8_t message) {
  const bool answers = now_.wire[n].asks && now_.control != n + 1;
  const auto answered = [&] {
    now_.asking = 0;
    if (answers) now_.control = static_cast<std::uint8_t>(n + 1);
  };
  const auto hang_up = [&] {
    if (now_.control == n + 1) now_.control = 0;
    now_.wire[n].open[0] = 0;
    now_.wire[n].broken = 1;
  };
  if (message == kBusy || message == coded(Say::error)) {
    if (answers && message == kBusy && now_.asking == coded(Say::give_back)) {
      answered();
      return to_source({ST::return_refused, an_error(Errc::busy)});
    }
    if (answers || now_.asking) return hang_up();  // asked again
    return to_source(source_failure(static_cast<ST>(now_.due)));
  }
  switch (static_cast<Say>(message - 1)) {
    case Say::ready: return to_source({ST::peer_ready});
    case Say::opened:  // answers no question for the disks
      if (now_.asking == coded(Say::revoke)) answered();
      return to_source({ST::peer_opened});
    case Say::revoked: return answered(), to_source({ST::peer_revoked});
    case Say::returned: return answered(), to_source({ST::peer_returned});
    case Say::unknown: return hang_up(), to_source({ST::peer_unknown});
    case Say::digests: return to_source({ST::peer_digests});
    case Say::finished: return to_source({ST::peer_finished});
    case Say::aborted: return to_source({ST::peer_aborted});
    default: return;
  }
}

void OwnershipModel::receive_at_destination(unsigned n, std::uint8_t message) {
  const auto over = [&] {
    const auto state = static_cast<migration::DestinationState>(now_.destination.state);
    return !now_.destination.present || state == migration::DestinationState::finished ||
           state == migration::DestinationState::failed;
  };
  if (over()) return answer_from_record(n, message);
  switch (static_cast<Say>(message - 1)) {
    case Say::ready_asked: return to_destination({DT::ready_asked});
    case Say::grant: return to_destination({DT::granted});
    case Say::revoke:
      now_.waiting |= static_cast<std::uint8_t>(1u << n);
      return to_destination({DT::revoke_asked});
    case Say::give_back: return to_destination({DT::return_asked});
    case Say::digests_asked: return to_destination({DT::digests_asked});
    case Say::finish: return to_destination({DT::finish_asked});
    case Say::abort: return to_destination({DT::abort_asked});
    default: return;
  }
}

void OwnershipModel::answer_from_record(unsigned n, std::uint8_t message) {
  const auto is = [&](Holding holding) { return now_.record[1] == coded(holding); };
  const bool open = is(Holding::receiving) || is(Holding::prepared);
  switch (static_cast<Say>(message - 1)) {
    case Say::grant:
      if (mutation_ != Mutation::revoked_without_record || !open) return send(n, 1, coded(Say::error));
      now_.record[1] = coded(Holding::owned);
      now_.filter[1] = raw(Filter::none);
      return send(n, 1, coded(Say::opened));
    case Say::revoke:
      if (open) now_.record[1] = coded(Holding::revoked);
      return send(n, 1,
                  coded(open || is(Holding::revoked) ? Say::revoked
                        : is(Holding::given)         ? Say::returned
                                                     : Say::opened));
    case Say::give_back:
      return send(n, 1, is(Holding::given) ? coded(Say::returned) : kBusy);
    case Say::finish: return send(n, 1, coded(Say::finished));
    case Say::abort: return send(n, 1, coded(Say::aborted));
    default: return send(n, 1, coded(Say::error));
  }
}

void OwnershipModel::stop(unsigned host) {
  now_.calls[host] = now_.claim[host] = now_.claim_stage[host] = 0;
  close_all(host);
  now_.power[host] = raw(Power::daemon_down);
  if (host == 1) {
    now_.destination = {};
    return;
  }
  now_.source = {};
  now_.told = now_.asking = now_.due = now_.recovered = 0;
  if (now_.filter[0] == raw(Filter::frozen)) now_.filter[0] = raw(Filter::tracking);
  now_.finish = now_.finish == raw(Finish::forwarding) ? raw(Finish::orphaned) : raw(Finish::over);
}

void OwnershipModel::life_steps(unsigned host) {
  const char* who = host ? "b" : "a";
  if (from_.power[host] == raw(Power::off)) {
    step(who, "boots", [&] {
      now_.power[host] = raw(Power::daemon_down);
      if (mutation_ != Mutation::no_bar_at_boot)
        bar(host);
      else if (host == 0)
        now_.guest[0] = kRunning;  // autostart
    });
  } else if (from_.power[host] == raw(Power::daemon_down)) {
    step(who, "ferryd starts", [&] { start_daemon(host); });
  } else if (from_.crashes[host] > 0) {
    step(who, "ferryd crashes", [&] {
      --now_.crashes[host];
      stop(host);
    }, true);
  }
  if (from_.power[host] != raw(Power::off) && from_.power_losses > 0) step(who, "loses power", [&] {
      --now_.power_losses;
      stop(host);
      now_.power[host] = raw(Power::off);
      now_.guest[host] = 0;
      now_.filter[host] = raw(Filter::none);
      if (host == 0) now_.late_fence = 0;
      if (host == 1 && now_.finish == raw(Finish::orphaned)) now_.finish = raw(Finish::over);
    }, true);
  if (from_.power[host] != raw(Power::up)) return;
  if (host == 1 && from_.destination.present && from_.destination.timers > 0)
    step("b", "patience is over", [&] { to_destination({DT::patience_over}); });
  if (host == 1 || !from_.source.present) return;
  // What the error of a record that could not be written tells the operator to do.
  const bool named = from_.source.error == coded(Errc::owner_unknown) && !from_.claim[0] && !from_.asking;
  const auto state = static_cast<migration::SourceState>(from_.source.state);
  if (named && state == migration::SourceState::reclaiming)
    step("a", "the operator restarts ferryd", [&] { stop(0); });
  if (state == migration::SourceState::awaiting_ready)
    step("a", "the guest has stood still for too long", [&] { to_source({ST::standstill_over}); }, true);
  const bool rolls_back = state == migration::SourceState::rolling_back && !from_.calls[0] && !from_.claim[0];
  if (from_.source.timers > 0 || rolls_back)
    step("a", "patience is over", [&] { to_source({ST::patience_over}); }, true);
}

void OwnershipModel::bar(unsigned host) {
  if (!now_.record[host] || !store::is_barred(static_cast<Holding>(now_.record[host] - 1))) return;
  if (passes(host)) now_.filter[host] = raw(Filter::fenced);
}

void OwnershipModel::start_daemon(unsigned host) {
  now_.power[host] = raw(Power::up);
  bar(host);
  const auto holding = static_cast<Holding>(now_.record[host] - 1);
  const bool forgets = mutation_ == Mutation::restart_forgets_grant && holding == Holding::granting;
  if (holding == Holding::owned || holding == Holding::moving || forgets) {
    now_.record[host] = coded(Holding::owned);
    now_.filter[host] = raw(Filter::none);
    if (host == 0 && now_.guest[0] == kPaused) now_.guest[0] = kRunning;
  } else if (host == 1) {
    if (holding == Holding::receiving || holding == Holding::prepared) now_.record[1] = coded(Holding::revoked);
    now_.filter[1] = raw(Filter::none);
    now_.volume_there = 0;
  } else if (holding == Holding::granting) {
    now_.recovered = 1;
    now_.source = fresh_source_;
    to_source({ST::recover});
  }
}

}  // namespace ferry::sim
