// SPDX-License-Identifier: GPL-2.0-or-later
#include "machine_probe.h"

#include <algorithm>
#include <array>
#include <string>

namespace ferry::migration {
namespace {

constexpr std::array<std::string_view, 3> kLastWords{"", "aborted", "finished"};

std::uint8_t code_of(const std::optional<Error>& error) {
  return error ? static_cast<std::uint8_t>(1 + static_cast<int>(error->code)) : 0;
}
void set_error(std::optional<Error>& error, std::uint8_t code) {
  if (code == 0)
    error.reset();
  else
    error.emplace(Error{static_cast<Errc>(code - 1), {}, 0, {}});
}

}  // namespace

// Every flag of the machines, in one order for both directions. A macro, since a const machine has other
// pointers than one that is loaded; replaying random walks finds a member that is missing here.
#define SOURCE_FLAGS(m)                                                                                        \
  {&(m).link_up_, &(m).peer_touched_, &(m).claimed_, &(m).attached_, &(m).hypervisor_running_,                  \
   &(m).finish_seen_, &(m).round_running_, &(m).round_began_paused_, &(m).soft_round_done_, &(m).frozen_,       \
   &(m).refused_, &(m).awaiting_thaw_, &(m).awaiting_detach_, &(m).awaiting_record_, &(m).awaiting_peer_abort_, \
   &(m).own_digest_, &(m).peer_digest_, &(m).peer_finished_, &(m).left_, &(m).conceded_}
#define DESTINATION_FLAGS(m)                                                                 \
  {&(m).owns_, &(m).may_own_, &(m).returned_, &(m).revoked_, &(m).link_up_, &(m).busy_, &(m).call_off_when_idle_, \
   &(m).revoke_asked_}

sim::PackedSource MachineProbe::save(const Source& m) {
  sim::PackedSource out;
  out.present = 1;
  out.state = static_cast<std::uint8_t>(m.state_);
  out.owner = static_cast<std::uint8_t>(m.owner_);
  out.error = code_of(m.error_);
  out.cause = code_of(m.cause_);
  out.pending = m.pending_ ? static_cast<std::uint8_t>(1 + static_cast<int>(*m.pending_)) : 0;
  out.timers = static_cast<std::uint8_t>(std::min(m.comeback_timers_, 255u));  // one for each broken link
  unsigned bit = 0;
  for (const bool* flag : std::initializer_list<const bool*> SOURCE_FLAGS(m)) {
    if (*flag) out.flags[bit / 8] |= static_cast<std::uint8_t>(1u << bit % 8);
    ++bit;
  }
  return out;
}

void MachineProbe::load(Source& m, const sim::PackedSource& packed) {
  m.state_ = static_cast<SourceState>(packed.state);
  m.owner_ = static_cast<SourceOwner>(packed.owner);
  set_error(m.error_, packed.error);
  set_error(m.cause_, packed.cause);
  m.pending_.reset();
  if (packed.pending) m.pending_ = static_cast<SourceEventType>(packed.pending - 1);
  m.times_ = {};
  m.rounds_ = 0;
  m.comeback_timers_ = packed.timers;
  unsigned bit = 0;
  for (bool* flag : std::initializer_list<bool*> SOURCE_FLAGS(m)) {
    *flag = packed.flags[bit / 8] >> bit % 8 & 1;
    ++bit;
  }
}

sim::PackedDestination MachineProbe::save(const Destination& m) {
  sim::PackedDestination out;
  out.present = 1;
  out.state = static_cast<std::uint8_t>(m.state_);
  out.error = code_of(m.error_);
  out.put_off = m.put_off_ ? static_cast<std::uint8_t>(1 + static_cast<int>(*m.put_off_)) : 0;
  // Only the last of several timers does anything: more than two are as good as two.
  out.timers = static_cast<std::uint8_t>(std::min(m.patience_timers_, 2u));
  for (std::size_t n = 0; n < kLastWords.size(); ++n)
    if (m.last_word_ == kLastWords[n]) out.last_word = static_cast<std::uint8_t>(n);
  unsigned bit = 0;
  for (const bool* flag : std::initializer_list<const bool*> DESTINATION_FLAGS(m)) {
    if (*flag) out.flags |= static_cast<std::uint8_t>(1u << bit);
    ++bit;
  }
  return out;
}

void MachineProbe::load(Destination& m, const sim::PackedDestination& packed) {
  m.state_ = static_cast<DestinationState>(packed.state);
  set_error(m.error_, packed.error);
  m.put_off_.reset();
  if (packed.put_off) m.put_off_ = static_cast<DestinationEventType>(packed.put_off - 1);
  m.patience_timers_ = packed.timers;
  m.last_word_ = kLastWords[packed.last_word];
  unsigned bit = 0;
  for (bool* flag : std::initializer_list<bool*> DESTINATION_FLAGS(m)) {
    *flag = packed.flags >> bit & 1;
    ++bit;
  }
}

}  // namespace ferry::migration
