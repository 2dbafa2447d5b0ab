// SPDX-License-Identifier: GPL-2.0-or-later
// What a round of a Sender covers: Extent, the ExtentSource it is asked for, and ExtentList for
// callers that hold their extents in memory.
// Thread-safety: a source is called by one thread at a time, though not always the same one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace ferry::mover {

// Any length; the Sender cuts it into its own requests. Starts at a multiple of 4 KiB; its end is
// one too, or at or past the end of the disk (what lies past the end is ignored).
struct Extent {
  uint32_t disk = 0;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;

  bool operator==(const Extent&) const = default;
};

// What to copy or compare in one round. Extents of one round must not overlap: streams do not wait
// for each other. Called under the Sender's lock, from its threads, never at the same time.
class ExtentSource {
 public:
  virtual ~ExtentSource() = default;
  virtual bool next(Extent& out) = 0;  // false: the round is complete
};

// Hands out the extents it was given, once and in their order; for example what a comparison found.
class ExtentList : public ExtentSource {
 public:
  explicit ExtentList(std::vector<Extent> extents) : extents_(std::move(extents)) {}

  bool next(Extent& out) override {
    if (next_ == extents_.size()) return false;
    out = extents_[next_++];
    return true;
  }

 private:
  const std::vector<Extent> extents_;
  size_t next_ = 0;
};

}  // namespace ferry::mover
