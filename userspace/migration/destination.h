// SPDX-License-Identifier: GPL-2.0-or-later
// The destination side of one migration: a pure event machine like Source. Its one duty above all: the
// gate opens only after a grant, and once it was open nothing of the disks is ever discarded.
// Thread-safety: none; one thread owns it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "migration/ports.h"

namespace ferry::migration {

class DestinationDevice {
 public:
  virtual ~DestinationDevice() = default;
  virtual void prepare() = 0;     // → prepared | failed (everything taken back)
  virtual void close_gate() = 0;  // reads wait, too; no answer
  virtual void flush() = 0;       // → flushed | failed: all that was received is on stable storage
  virtual void open_gate() = 0;   // → opened | failed
  virtual void verify() = 0;      // → verified | failed
  virtual void finish() = 0;      // → cleaned: plain tables are back, the volumes stay
  virtual void discard() = 0;     // → cleaned: plain tables are back, what we created is removed
};

class SourceLink {
 public:
  virtual ~SourceLink() = default;
  virtual void answer(std::string_view what) = 0;  // prepared, ready, opened, digests, finished, aborted
  virtual void refuse(const Error& error) = 0;
};

enum class DestinationState {
  idle, preparing, receiving, flushing, ready, opening, open, verifying, cleaning, finished, failed,
};
std::string_view state_name(DestinationState state);

enum class DestinationEventType {
  prepare, close_gate, ready_asked, granted, digests_asked, finish_asked, abort_asked, link_lost,
  prepared, flushed, opened, verified, cleaned, failed,
};
std::string_view event_name(DestinationEventType type);

struct DestinationEvent {
  DestinationEventType type;
  std::optional<Error> error{};
};

class Destination {
 public:
  struct Ports {
    DestinationDevice& device;
    SourceLink& link;
    std::function<void(const std::string&)> log;
  };
  explicit Destination(Ports ports) : ports_(std::move(ports)) {}

  void handle(const DestinationEvent& event);
  DestinationState state() const { return state_; }
  bool ended() const {
    return state_ == DestinationState::finished || state_ == DestinationState::failed;
  }
  bool opened() const { return opened_; }
  const std::optional<Error>& error() const { return error_; }

 private:
  void enter(DestinationState next);
  void give_up(Error error, bool tell);
  void clean(bool keep);
  bool legal(const DestinationEvent& event) const;

  Ports ports_;
  DestinationState state_ = DestinationState::idle;
  std::optional<Error> error_;
  bool opened_ = false;
  bool link_up_ = true;
  bool busy_ = false;            // a device action is under way
  bool clean_when_idle_ = false; // the end was asked for meanwhile
  std::string_view last_word_;   // what to answer when everything is cleaned
};

}  // namespace ferry::migration
