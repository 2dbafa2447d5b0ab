// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/sender.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "mover/round.h"
#include "mover/sender_stream.h"
#include "wire/frame.h"

namespace ferry::mover {

class Sender::Crew {
 public:
  Crew(std::vector<std::unique_ptr<wire::Channel>> channels, SenderOptions options)
      : options_(options) {
    for (auto& channel : channels)
      streams_.push_back(std::make_unique<SenderStream>(std::move(channel)));
  }

  // A copy is a round that finds no differences.
  Result<Comparison> run_round(RoundKind kind, const std::vector<DiskSource>& disks,
                               ExtentSource& extents,
                               const std::function<void(const CopyStats&)>& progress,
                               std::stop_token stop) {
    if (broken_) return *broken_;
    FERRY_TRY(prepare(disks));
    Round round(kind, ++round_number_, disks, extents, options_.limit, [this] { abort(); });
    {
      const std::stop_callback on_stop(stop, [&] {
        round.fail(make_error(Errc::aborted, std::string(kind == RoundKind::copy
                                                             ? "the copy" : "the comparison") +
                              " was called off"));
      });
      run(round, progress);
    }
    if (auto error = round.error()) {
      broken_ = error;
      return *error;
    }
    const CopyStats stats = round.stats();
    if (progress) progress(stats);
    return Comparison{round.take_differing(), stats};
  }

  void abort() {
    for (auto& stream : streams_) stream->abort();
  }
  void finish() {
    for (auto& stream : streams_) stream->end();
    for (auto& stream : streams_) stream->await_end();
    broken_ = make_error(Errc::failed, "the data streams were ended");
  }
  std::string_view engine() const {
    if (streams_.empty() || !streams_[0]->prepared()) return "not started";
    return io_engine_name(streams_[0]->engine());
  }

 private:
  Status prepare(const std::vector<DiskSource>& disks) {
    if (streams_.empty()) return make_error(Errc::failed, "there is no stream to copy over");
    for (const DiskSource& disk : disks)
      if (disk.disk >= wire::kMaxDisks || disk.size_bytes % wire::kSectorBytes != 0 ||
          disk.size_bytes > wire::kMaxDiskBytes)
        return make_error(Errc::unsupported, "disk " + std::to_string(disk.disk) + " of " +
                          std::to_string(disk.size_bytes) + " bytes cannot be copied", 0,
                          "its size has to be a multiple of 512 bytes");
    for (auto& stream : streams_)
      if (!stream->prepared()) FERRY_TRY(stream->prepare(options_.reads_in_flight, options_.engine));
    return ok_status();
  }

  // Runs all threads of the round to their end, reporting in between.
  void run(Round& round, const std::function<void(const CopyStats&)>& progress) {
    std::mutex mutex;
    std::condition_variable changed;
    size_t running = 2 * streams_.size();
    const auto leave = [&] {
      const std::lock_guard lock(mutex);
      if (--running == 0) changed.notify_all();
    };
    std::vector<std::jthread> threads;
    for (auto& stream : streams_) {
      threads.emplace_back([&, s = stream.get()] { s->send_round(round); leave(); });
      threads.emplace_back([&, s = stream.get()] { s->read_acks(round); leave(); });
    }
    std::unique_lock lock(mutex);
    while (!changed.wait_for(lock, options_.progress_every, [&] { return running == 0; })) {
      lock.unlock();
      if (progress) progress(round.stats());
      lock.lock();
    }
    lock.unlock();
    threads.clear();
  }

  const SenderOptions options_;
  std::vector<std::unique_ptr<SenderStream>> streams_;
  uint64_t round_number_ = 0;
  std::optional<Error> broken_;
};

Sender::Sender(std::vector<std::unique_ptr<wire::Channel>> streams, SenderOptions options)
    : crew_(std::make_unique<Crew>(std::move(streams), options)) {}
Sender::~Sender() = default;

Result<CopyStats> Sender::copy(const std::vector<DiskSource>& disks, ExtentSource& extents,
                               const std::function<void(const CopyStats&)>& progress,
                               std::stop_token stop) {
  auto round = crew_->run_round(RoundKind::copy, disks, extents, progress, std::move(stop));
  if (!round.ok()) return std::move(round).error();
  return std::move(round->stats);
}
Result<Comparison> Sender::compare(const std::vector<DiskSource>& disks, ExtentSource& extents,
                                   const std::function<void(const CopyStats&)>& progress,
                                   std::stop_token stop) {
  return crew_->run_round(RoundKind::compare, disks, extents, progress, std::move(stop));
}
void Sender::finish() { crew_->finish(); }
void Sender::abort() { crew_->abort(); }
std::string_view Sender::engine() const { return crew_->engine(); }

}  // namespace ferry::mover
