// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/source_device.h"

#include <algorithm>

#include "base/log.h"
#include "mover/digest.h"

namespace ferry::daemon {

using migration::failure_of;
using migration::RoundKind;
using T = migration::SourceEventType;

namespace {

// In the final round nothing is in flight but what the guest left behind: a second is long.
constexpr std::uint32_t kFreezeTimeoutMs = 5'000;
// The watchdog lets the guest go on if this daemon dies between freeze and fence.
constexpr std::uint32_t kFreezeWatchdogMs = 60'000;
// Largest run taken from a map at once; the Sender cuts it into its own requests.
constexpr std::uint64_t kMaxRunBytes = 1u << 20;

std::uint64_t ms_since(std::chrono::steady_clock::time_point began) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began).count());
}

}  // namespace

struct SourceDisks::RoundPart {
  std::uint32_t disk;
  std::uint64_t size_bytes;
  std::optional<filter::RetiredMap> map;  // nothing: the whole disk
};

// The extents of one round, disk after disk, swap last: what the guest swaps in a hurry is stale soonest.
class SourceDisks::RoundExtents : public mover::ExtentSource {
 public:
  explicit RoundExtents(std::vector<RoundPart> parts) : parts_(std::move(parts)) {}

  bool next(mover::Extent& out) override {
    for (; part_ < parts_.size(); ++part_, at_ = 0) {
      auto& part = parts_[part_];
      if (part.map) {
        const auto shift = part.map->block_shift();
        const auto run = part.map->next_run(at_, kMaxRunBytes >> shift);
        if (!run) continue;
        at_ = run->first + run->count;
        out.disk = part.disk;
        out.offset_bytes = run->first << shift;
        out.length_bytes = std::min(run->count << shift, part.size_bytes - out.offset_bytes);
        return true;
      }
      if (at_ >= part.size_bytes) continue;
      out.disk = part.disk;
      out.offset_bytes = at_;
      out.length_bytes = std::min(kMaxRunBytes, part.size_bytes - at_);
      at_ += out.length_bytes;
      return true;
    }
    return false;
  }

 private:
  std::vector<RoundPart> parts_;
  std::size_t part_ = 0;
  std::uint64_t at_ = 0;
};

// One source after the other.
class SourceDisks::Both : public mover::ExtentSource {
 public:
  Both(mover::ExtentSource& first, mover::ExtentSource& second) : first_(first), second_(second) {}
  bool next(mover::Extent& out) override { return first_.next(out) || second_.next(out); }

 private:
  mover::ExtentSource& first_;
  mover::ExtentSource& second_;
};

SourceDisks::SourceDisks(std::vector<SourceDisk> disks, std::uint64_t map_memory_bytes,
                         std::uint64_t bandwidth_bytes_per_s, OpenStreams open_streams, Bases bases,
                         Post post)
    : disks_(std::move(disks)), map_memory_bytes_(map_memory_bytes), limit_(bandwidth_bytes_per_s),
      open_streams_(std::move(open_streams)), bases_(std::move(bases)), post_(std::move(post)) {
  for (const auto& disk : disks_)
    if (disk.role != volume::Role::scratch) items_.push_back({&disk, std::nullopt});
  std::stable_partition(items_.begin(), items_.end(),
                        [](const Item& item) { return item.disk->role != volume::Role::swap; });
  progress_.disk_sent_bytes.resize(disks_.size());
  progress_.disk_zero_bytes.resize(disks_.size());
  progress_.disk_dirty_bytes.resize(disks_.size());
  progress_.digests.resize(disks_.size());
}

SourceDisks::~SourceDisks() { stop_.request_stop(); }

void SourceDisks::attach() {
  worker_.post([this] {
    if (auto done = attach_all(); !done) return post_(failure_of(T::attached, std::move(done).error()));
    post_({T::attached});
  });
}

Status SourceDisks::attach_all() {
  auto streams = open_streams_();
  if (!streams) return std::move(streams).error();
  mover::SenderOptions options;
  options.limit = &limit_;
  sender_ = std::make_unique<mover::Sender>(std::move(*streams), options);
  for (const auto& reply : bases_())
    for (auto& item : items_)
      if (item.disk->index == reply.index) item.base = reply.base;
  for (auto& item : items_) {
    auto attached = attach_one(item);
    if (attached) continue;
    if (auto undone = detach_all(); !undone) spdlog::error("taking the filter out again: {}", undone.error().message());
    return attached;
  }
  return ok_status();
}

Status SourceDisks::attach_one(Item& item) {
  filter::AttachRequest request;
  request.path = item.disk->path;
  request.mode = FERRY_MODE_TRACK;
  request.map_memory_bytes = map_memory_bytes_;
  if (item.base == Base::exact) request.adopt = item.disk->tracker;
  auto attached = filter::Attachment::attach(request);
  if (!attached && request.adopt) {
    spdlog::warn("{}; both copies are compared", attached.error().message());
    request.adopt.reset();
    item.base = Base::some;
    attached = filter::Attachment::attach(request);
  }
  if (!attached) return std::move(attached).error();
  item.attachment.emplace(std::move(*attached));
  spdlog::info("{}: tracking ({}); the destination has of it: {}", item.disk->path,
               item.attachment->in_place() ? "in place" : "stacked", base_name(item.base));
  return ok_status();
}

Status SourceDisks::detach_all() {
  std::optional<Error> first;
  for (auto& item : items_) {
    if (!item.attachment) continue;
    if (auto done = item.attachment->detach(); !done) {
      spdlog::error("{}: {}", item.disk->path, done.error().message());
      if (!first) first = std::move(done).error();
    }
    item.attachment.reset();
  }
  sender_.reset();
  if (first) return *first;
  return ok_status();
}

void SourceDisks::copy_round(RoundKind kind) {
  worker_.post([this, kind] {
    auto report = run_round(kind);
    if (!report) return post_(failure_of(T::round_done, std::move(report).error()));
    migration::SourceEvent done{T::round_done};
    done.round = *report;
    post_(std::move(done));
  });
}

void SourceDisks::stop_copy() { stop_.request_stop(); }

Result<migration::RoundReport> SourceDisks::run_round(RoundKind kind) {
  const auto began = std::chrono::steady_clock::now();
  std::vector<RoundPart> parts;
  std::vector<mover::DiskSource> sources;
  std::uint64_t covered = 0;
  const auto from_map = [kind](const Item& item) { return kind == RoundKind::dirty || item.base == Base::exact; };
  for (auto& item : items_) {
    auto& attachment = *item.attachment;
    RoundPart part{item.disk->index, attachment.size_bytes(), std::nullopt};
    if (from_map(item)) {
      auto map = attachment.tracker().swap();
      if (!map) return std::move(map).error();
      covered += map->dirty() << map->block_shift();
      part.map.emplace(std::move(*map));
    } else {
      covered += part.size_bytes;
    }
    sources.push_back({item.disk->index, attachment.door_fd(), attachment.size_bytes()});
    parts.push_back(std::move(part));
  }
  {
    std::lock_guard lock(mutex_);
    ++progress_.round;
    progress_.round_total_bytes = covered;
    progress_.round_done_bytes = 0;
    wire_before_round_ = progress_.wire_bytes;
  }
  auto stats = [&]() -> Result<mover::CopyStats> {
    // The mappings end before the maps are released.
    if (kind == RoundKind::full) return copy_first(sources, std::move(parts), began);
    RoundExtents extents(std::move(parts));
    return sender_->copy(sources, extents, [this, began](const mover::CopyStats& s) { note_progress(s, began); },
                         stop_.get_token());
  }();
  if (!stats) return std::move(stats).error();
  {
    std::lock_guard lock(mutex_);
    progress_.round_done_bytes = progress_.round_total_bytes;
    progress_.wire_bytes = wire_before_round_ + stats->wire_bytes;
  }
  for (auto& item : items_)
    if (from_map(item)) FERRY_TRY(item.attachment->tracker().release());
  auto residual = dirty_bytes();
  if (!residual) return std::move(residual).error();
  {
    std::lock_guard lock(mutex_);
    const auto at = [](const std::vector<std::uint64_t>& list, std::size_t n) { return n < list.size() ? list[n] : 0; };
    for (std::size_t n = 0; n < disks_.size(); ++n) {
      progress_.disk_sent_bytes[n] += at(stats->disk_bytes, n) + at(stats->disk_zero_bytes, n);
      progress_.disk_zero_bytes[n] += at(stats->disk_zero_bytes, n);
    }
    progress_.rounds.push_back(
        {progress_.round, covered, progress_.wire_bytes - wire_before_round_, ms_since(began), *residual});
  }
  migration::RoundReport report;
  report.sent_bytes = stats->covered_bytes;
  report.took = stats->elapsed;
  report.residual_bytes = *residual;
  return report;
}

// The first round: what the destination has already does not travel. `parts` are in the order of items_.
Result<mover::CopyStats> SourceDisks::copy_first(const std::vector<mover::DiskSource>& sources,
                                                 std::vector<RoundPart> parts,
                                                 std::chrono::steady_clock::time_point began) {
  std::vector<RoundPart> compared, copied;
  for (std::size_t n = 0; n < items_.size(); ++n)
    (items_[n].base == Base::some ? compared : copied).push_back(std::move(parts[n]));
  mover::CopyStats before;
  std::vector<mover::Extent> differing;
  if (!compared.empty()) {
    RoundExtents extents(std::move(compared));
    auto found = sender_->compare(sources, extents, [this, began](const mover::CopyStats& s) { note_progress(s, began); },
                                  stop_.get_token());
    if (!found) return std::move(found).error();
    before = found->stats;
    differing = std::move(found->differing);
    std::lock_guard lock(mutex_);
    for (const auto& extent : differing) progress_.round_total_bytes += extent.length_bytes;
  }
  RoundExtents rest(std::move(copied));
  mover::ExtentList found(std::move(differing));
  Both extents(rest, found);
  auto stats = sender_->copy(sources, extents, [&](mover::CopyStats s) {
    s.covered_bytes += before.covered_bytes;
    s.wire_bytes += before.wire_bytes;
    note_progress(s, began);
  }, stop_.get_token());
  if (!stats) return std::move(stats).error();
  stats->wire_bytes += before.wire_bytes;
  return stats;
}

void SourceDisks::note_progress(const mover::CopyStats& stats, std::chrono::steady_clock::time_point began) {
  (void)dirty_bytes();  // for those who watch; the round's own count is taken at its end
  std::lock_guard lock(mutex_);
  progress_.round_done_bytes = stats.covered_bytes;
  progress_.wire_bytes = wire_before_round_ + stats.wire_bytes;
  const auto ms = ms_since(began);
  if (ms > 0) progress_.rate_bytes_per_s = static_cast<double>(stats.covered_bytes) * 1e3 / static_cast<double>(ms);
}

Result<std::uint64_t> SourceDisks::dirty_bytes() {
  std::uint64_t sum = 0;
  for (auto& item : items_) {
    auto info = item.attachment->tracker().info();
    if (!info) return std::move(info).error();
    const std::uint64_t bytes = info->dirty << info->block_shift;
    sum += bytes;
    std::lock_guard lock(mutex_);
    progress_.disk_dirty_bytes[item.disk->index] = bytes;
  }
  return sum;
}

void SourceDisks::freeze() {
  worker_.post([this] {
    for (auto& item : items_) {
      auto frozen = item.attachment->tracker().freeze(kFreezeTimeoutMs, kFreezeWatchdogMs);
      if (frozen) continue;
      (void)thaw_all();
      return post_(failure_of(T::frozen, std::move(frozen).error()));
    }
    post_({T::frozen});
  });
}

Status SourceDisks::thaw_all() {
  std::optional<Error> first;
  for (auto& item : items_) {
    if (!item.attachment) continue;
    auto& tracker = item.attachment->tracker();
    auto done = item.fenced ? tracker.unfence() : tracker.thaw();
    item.fenced = false;
    auto info = tracker.info();
    const bool flows = info && info->state == FERRY_STATE_TRACKING;
    if (!done && !flows && !first) first = std::move(done).error();
  }
  if (first) return *first;
  return ok_status();
}

void SourceDisks::thaw() {
  worker_.post([this] {
    if (auto done = thaw_all(); !done) return post_(failure_of(T::thawed, std::move(done).error()));
    post_({T::thawed});
  });
}

void SourceDisks::fence() {
  worker_.post([this] {
    for (auto& item : items_) {
      if (auto fenced = item.attachment->tracker().fence(); !fenced) {
        (void)thaw_all();
        return post_(failure_of(T::fenced, std::move(fenced).error()));
      }
      item.fenced = true;
    }
    post_({T::fenced});
  });
}

void SourceDisks::digest() {
  worker_.post([this] {
    for (auto& item : items_) {
      auto digest = mover::digest_of(item.attachment->door_fd(), item.attachment->size_bytes(),
                                     mover::kHashBlockShift, {}, stop_.get_token());
      if (!digest) return post_(failure_of(T::digests_taken, std::move(digest).error()));
      std::lock_guard lock(mutex_);
      progress_.digests[item.disk->index] = digest->hex();
    }
    post_({T::digests_taken});
  });
}

void SourceDisks::detach() {
  worker_.post([this] {
    if (auto done = detach_all(); !done) return post_(failure_of(T::detached, std::move(done).error()));
    post_({T::detached});
  });
}

void SourceDisks::leave_fenced() {
  worker_.post([this] {
    sender_->finish();
    std::optional<Error> first;
    for (auto& item : items_) {
      if (auto left = item.attachment->leave(); !left && !first) first = std::move(left).error();
      item.attachment.reset();
    }
    if (first) return post_(failure_of(T::detached, *first));
    post_({T::detached});
  });
}

CopyProgress SourceDisks::progress() const {
  std::lock_guard lock(mutex_);
  return progress_;
}

}  // namespace ferry::daemon
