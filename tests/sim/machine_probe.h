// SPDX-License-Identifier: GPL-2.0-or-later
// Takes the whole state out of a machine of migration/ and puts it into one: a few bytes that can be compared
// and kept by the million. Texts of errors and clock times do not steer the machines and are left out.
// Thread-safety: plain functions.
#pragma once

#include <cstdint>

#include "migration/destination.h"
#include "migration/source.h"

namespace ferry::sim {

struct PackedSource {
  std::uint8_t present = 0, state = 0, owner = 0, error = 0, cause = 0, pending = 0;
  std::uint8_t timers = 0;
  std::uint8_t flags[3] = {0, 0, 0};
  bool operator==(const PackedSource&) const = default;
};

struct PackedDestination {
  std::uint8_t present = 0, state = 0, error = 0, put_off = 0, last_word = 0, timers = 0;
  std::uint8_t flags = 0;
  bool operator==(const PackedDestination&) const = default;
};

}  // namespace ferry::sim

namespace ferry::migration {

struct MachineProbe {
  static sim::PackedSource save(const Source& machine);
  static void load(Source& machine, const sim::PackedSource& packed);
  static sim::PackedDestination save(const Destination& machine);
  static void load(Destination& machine, const sim::PackedDestination& packed);
};

}  // namespace ferry::migration
