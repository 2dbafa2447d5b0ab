// SPDX-License-Identifier: GPL-2.0-or-later
// The SourceDevice port: what daemon/source_device does with the kernel filter and the data streams, one
// call after the other as its worker thread does.
// Thread-safety: none.
#pragma once

#include <deque>
#include <vector>

#include "link.h"
#include "migration/source.h"

namespace ferry::sim {

class Outgoing;

class SourceDisks : public migration::SourceDevice {
 public:
  SourceDisks(World& world, Outgoing& job) : world_(world), job_(job) {}

  void attach() override { ask(Call::attach, "attach"); }
  void copy_round(migration::RoundKind kind) override {
    ask(kind == migration::RoundKind::full ? Call::full : Call::dirty, "copy_round");
  }
  void stop_copy() override;
  void freeze() override { ask(Call::freeze, "freeze"); }
  void thaw() override { ask(Call::thaw, "thaw"); }
  void fence() override { ask(Call::fence, "fence"); }
  void digest() override { ask(Call::digest, "digest"); }
  void detach() override { ask(Call::detach, "detach"); }
  void leave_fenced() override { ask(Call::leave, "leave_fenced"); }

  void receive(std::uint32_t connection, const Message& message);
  void connection_lost(std::uint32_t connection);
  void close();
  std::uint64_t digest_taken() const { return digest_; }

 private:
  enum class Call : std::uint8_t { attach, full, dirty, freeze, thaw, fence, digest, detach, leave };
  struct Place {
    std::uint8_t disk, block;
  };
  // What a round is at: blocks are compared before those that differ travel.
  enum class Stage : std::uint8_t { copy, compare };
  struct Stream {
    std::uint32_t connection;
    std::vector<Place> todo;
    std::size_t at = 0;
    bool answered = false;
  };

  void ask(Call call, const char* name);
  void next();
  void run(Call call);
  void done(migration::SourceEventType type);
  void failed(migration::SourceEventType step, Errc code, const char* why);
  bool attach_all();
  void begin_round(Call call);
  void begin_stage(Stage stage, const std::vector<Place>& places);
  void stage_over();
  void step(std::size_t stream, std::uint32_t round);
  void end_round();
  void break_round(Errc code, const char* why);
  void freeze_all(unsigned tries);
  void thaw_all();
  void fence_all();
  void take_out();

  World& world_;
  Outgoing& job_;
  std::deque<Call> calls_;
  bool busy_ = false;
  std::vector<Stream> streams_;
  std::uint32_t round_ = 0;      // of the streams
  bool in_round_ = false, stopped_ = false;
  Base base_ = Base::none;
  Stage stage_ = Stage::copy;
  std::vector<Place> differing_;
  std::uint64_t digest_ = 0;
  std::uint32_t covered_ = 0;
  Time round_began_ = 0;
};

}  // namespace ferry::sim
