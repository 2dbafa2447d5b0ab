// SPDX-License-Identifier: GPL-2.0-or-later
// What goes wrong in a run, and when: drawn from the seed before it begins. A fault is put at a point: the
// n-th call of a port, or event of a machine, so that short steps are hit as often as long ones.
// Thread-safety: none.
#pragma once

#include <cstdint>
#include <vector>

#include "random.h"
#include "schedule.h"

namespace ferry::sim {

struct World;

enum class FaultKind : std::uint8_t {
  crash, power_off, cut_link, slow_link, hang, fail_step, resume_itself, no_start, lose_reply, guest_crash,
  operator_start, abort, shut_down, lose_records, destroy, stray, count
};
const char* fault_name(FaultKind kind);

struct Fault {
  std::uint32_t at = 0;     // point
  FaultKind kind{};
  std::uint8_t host = 0;
  Time length = 0;          // how long it stays down, or hangs
};

class Faults {
 public:
  explicit Faults(World& world) : world_(world) {}

  void plan(Random& random);
  // A point was reached; puts due faults into the world.
  void at_point(const char* name);
  // Is the step that begins now one that fails? Uses the fault up.
  bool take_failure();
  bool duplicates() const { return duplicates_; }
  bool over() const { return next_ >= plan_.size(); }
  void stop() { next_ = plan_.size(), failures_ = 0, duplicates_ = false; }

 private:
  void apply(const Fault& fault, const char* point);
  void apply_to_guest(const Fault& fault);
  void stray(unsigned host);

  World& world_;
  std::vector<Fault> plan_;
  std::size_t next_ = 0;
  std::uint32_t points_ = 0;
  unsigned failures_ = 0;
  bool duplicates_ = false;
};

}  // namespace ferry::sim
