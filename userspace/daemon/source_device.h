// SPDX-License-Identifier: GPL-2.0-or-later
// SourceDisks: the source's disks of one VM: puts the filter in, copies rounds, freezes, fences, digests.
// Implements the brain's SourceDevice with a worker thread of its own; answers go to `post`.
// Thread-safety: the port's methods from the control loop; progress() from any thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/token_bucket.h"
#include "daemon/control_loop.h"
#include "daemon/messages.h"
#include "filter/attachment.h"
#include "migration/source.h"
#include "mover/extent_source.h"
#include "mover/sender.h"
#include "volume/volume.h"

namespace ferry::daemon {

struct SourceDisk {
  std::uint32_t index = 0;       // in the session
  std::string target;            // vda
  std::string path;
  volume::Role role = volume::Role::data;
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_size = 512;
  std::string volume_id;         // volume::VolumeInfo::id
  // The filter that is there has seen every write since the generation that the destination may still hold.
  std::optional<filter::TrackerUuid> tracker;
};

struct RoundRecord {
  unsigned n = 0;
  std::uint64_t covered_bytes = 0;   // of the disks, zeroes included
  std::uint64_t wire_bytes = 0;      // sent over the link
  std::uint64_t took_ms = 0;
  std::uint64_t residual_bytes = 0;  // dirty again when it ended
};

// A snapshot for the job's status.
struct CopyProgress {
  unsigned round = 0;
  std::uint64_t round_total_bytes = 0, round_done_bytes = 0;
  std::uint64_t wire_bytes = 0;                 // over all rounds
  double rate_bytes_per_s = 0;                  // of the running round
  std::vector<std::uint64_t> disk_sent_bytes;   // by SourceDisk position, zeroes included
  std::vector<std::uint64_t> disk_zero_bytes;   // of those
  std::vector<std::uint64_t> disk_dirty_bytes;
  std::vector<std::string> digests;
  std::vector<RoundRecord> rounds;
};

class SourceDisks : public migration::SourceDevice {
 public:
  using Post = std::function<void(migration::SourceEvent)>;
  // Opens the data streams once the peer is prepared.
  using OpenStreams = std::function<Result<std::vector<std::unique_ptr<wire::Channel>>>()>;
  // What the destination has of each disk; asked once it is prepared.
  using Bases = std::function<std::vector<DiskReply>()>;

  // map_memory_bytes: for the dirty maps of one disk.
  SourceDisks(std::vector<SourceDisk> disks, std::uint64_t map_memory_bytes, std::uint64_t bandwidth_bytes_per_s,
              OpenStreams open_streams, Bases bases, Post post);
  ~SourceDisks() override;

  void attach() override;
  void copy_round(migration::RoundKind kind) override;
  void stop_copy() override;
  void freeze() override;
  void thaw() override;
  void fence() override;
  void digest() override;
  void detach() override;
  void leave_fenced() override;

  CopyProgress progress() const;

 private:
  struct Item {
    const SourceDisk* disk;
    std::optional<filter::Attachment> attachment;
    bool fenced = false;
    Base base = Base::none;
  };
  class RoundExtents;
  class Both;
  struct RoundPart;

  Status attach_all();
  Status attach_one(Item& item);
  Result<mover::CopyStats> copy_first(const std::vector<mover::DiskSource>& sources, std::vector<RoundPart> parts,
                                      std::chrono::steady_clock::time_point began);
  Status detach_all();
  Result<migration::RoundReport> run_round(migration::RoundKind kind);
  Result<std::uint64_t> dirty_bytes();
  void note_progress(const mover::CopyStats& stats, std::chrono::steady_clock::time_point began);
  Status thaw_all();

  std::vector<SourceDisk> disks_;
  std::uint64_t map_memory_bytes_;
  TokenBucket limit_;
  OpenStreams open_streams_;
  Bases bases_;
  Post post_;
  std::vector<Item> items_;
  std::unique_ptr<mover::Sender> sender_;
  std::stop_source stop_;
  mutable std::mutex mutex_;  // guards progress_
  CopyProgress progress_;
  std::uint64_t wire_before_round_ = 0;
  Worker worker_;             // last: its thread uses everything above
};

}  // namespace ferry::daemon
