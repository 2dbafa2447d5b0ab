// SPDX-License-Identifier: GPL-2.0-or-later
// Connections between the two daemons. Messages of one connection keep their order and come once; a
// connection that breaks loses what had not arrived, each side learns of it at a time of its own, and until
// then it takes in what had arrived: perhaps after a younger connection has spoken.
// Thread-safety: none.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "schedule.h"
#include "volume.h"

namespace ferry::sim {

struct World;

enum class Say : std::uint8_t {
  prepare, prepared, close_gate, ready_asked, ready, grant, opened, revoke, revoked, give_back, returned,
  digests_asked, digests, finish, finished, abort, aborted, error, unknown,
  extent, check, differs, round_end,
};
const char* say_name(Say say);

enum class Purpose : std::uint8_t { control, ask, data };

// What the destination has of the disks already (docs/protocol.md).
enum class Base : std::uint8_t { none, some, exact };

struct Message {
  Say say{};
  std::uint8_t disk = 0, block = 0;
  bool equal = true;               // digests
  bool keep = false;               // prepare: what is copied is kept if the migration is called off
  Base has = Base::none;           // prepared
  Errc code = Errc::failed;        // error
  std::uint32_t session = 0, round = 0;
  std::uint64_t base = 0;          // prepare, revoke: the source's generation before the session
  std::uint64_t changes_since = 0; // prepare: the source has a map of all changes since that generation
  Block contents{};                // extent; check: stands for their hash
  std::uint32_t number = 0;        // within its connection and direction
};

struct Connection {
  Purpose purpose{};
  unsigned dialer = 0;
  std::uint32_t session = 0;
  bool open[2] = {true, true};     // by host: that side has not seen its end
  Time last_arrival[2] = {0, 0};
  Time cut_at[2];                  // what would arrive later is lost
  std::uint32_t sent[2] = {0, 0};  // by sender
};

class Links {
 public:
  explicit Links(World& world) : world_(world) {}

  bool up() const { return up_; }
  void cut(Time heals_after);
  void heal() { up_ = true; }
  void slow(Time extra, Time for_long) { extra_ = extra, slow_until_ = for_long; }

  // Both daemons run and the network is there.
  bool reachable() const;
  std::uint32_t open(Purpose purpose, unsigned dialer, std::uint32_t session);
  void send(std::uint32_t connection, unsigned from, Message message);
  // This side ends it; the other learns of it after everything that was said.
  void close(std::uint32_t connection, unsigned from);
  // Breaks every open connection. `silent`: nobody tells the survivors, keepalives have to find out.
  void break_all(unsigned dead_host, bool silent);
  const Connection& at(std::uint32_t connection) const { return list_[connection]; }
  bool is_open(std::uint32_t connection, unsigned side) const {
    return connection < list_.size() && list_[connection].open[side];
  }
  Time latency();

 private:
  void break_one(std::uint32_t connection, bool quickly);
  void deliver(std::uint32_t connection, unsigned to, const Message& message);
  void lost(std::uint32_t connection, unsigned side);

  World& world_;
  std::vector<Connection> list_;
  bool up_ = true;
  Life cuts_ = 0;
  Time extra_ = 0, slow_until_ = 0;
};

inline constexpr std::uint32_t kNoConnection = 0xffffffff;

}  // namespace ferry::sim
