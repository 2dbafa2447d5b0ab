// SPDX-License-Identifier: GPL-2.0-or-later
// Jobs: every migration this daemon takes part in, running or ended, by id.
// Thread-safety: all methods from any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api/api_types.h"
#include "daemon/incoming_job.h"
#include "daemon/source_job.h"

namespace ferry::daemon {

class Jobs {
 public:
  // Ended jobs are remembered up to this number, the oldest go first.
  static constexpr std::size_t kMaxEnded = 100;

  // One job per VM at a time: Errc::busy when it already moves.
  Status add(std::shared_ptr<SourceJob> job);
  Status add(std::shared_ptr<IncomingJob> job);
  std::shared_ptr<SourceJob> outgoing(const std::string& id) const;
  // The job that works on this session.
  std::shared_ptr<SourceJob> of_session(const std::string& session) const;
  std::shared_ptr<IncomingJob> incoming(const std::string& id) const;
  std::vector<api::JobStatus> all() const;
  Result<api::JobStatus> find(const std::string& id_or_vm) const;
  // Takes every outgoing job back and waits for it. Incoming ones end with their connections. False when
  // one is left in doubt: its guest stands still and must be left so, until the next start has asked the peer.
  bool stop_outgoing();
  // To be called when no connection is served any more: waits until what the incoming jobs left is taken back.
  void settle_incoming();

 private:
  void forget_old();
  bool moves(const std::string& vm) const;

  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<SourceJob>> outgoing_;
  std::vector<std::shared_ptr<IncomingJob>> incoming_;
};

}  // namespace ferry::daemon
