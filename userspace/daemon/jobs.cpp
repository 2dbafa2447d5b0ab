// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/jobs.h"

#include <algorithm>

namespace ferry::daemon {

bool Jobs::moves(const std::string& vm) const {
  for (const auto& job : outgoing_)
    if (const auto s = job->status(); s.vm == vm && !api::is_final(s.state)) return true;
  for (const auto& job : incoming_)
    if (const auto s = job->status(); s.vm == vm && !api::is_final(s.state)) return true;
  return false;
}

Status Jobs::add(std::shared_ptr<SourceJob> job) {
  std::lock_guard lock(mutex_);
  if (const auto vm = job->status().vm; moves(vm))
    return make_error(Errc::busy, "the VM " + vm + " is already being moved", 0, "see migrate-ctl jobs");
  outgoing_.push_back(std::move(job));
  forget_old();
  return ok_status();
}

Status Jobs::add(std::shared_ptr<IncomingJob> job) {
  std::lock_guard lock(mutex_);
  if (const auto vm = job->status().vm; moves(vm))
    return make_error(Errc::busy, "the VM " + vm + " is already being moved here", 0,
                      "wait for the other job to end; see migrate-ctl jobs on this host");
  incoming_.push_back(std::move(job));
  forget_old();
  return ok_status();
}

void Jobs::forget_old() {
  const auto trim = [](auto& jobs) {
    while (jobs.size() > kMaxEnded) {
      const auto old = std::find_if(jobs.begin(), jobs.end(),
                                    [](const auto& job) { return api::is_final(job->status().state); });
      if (old == jobs.end()) return;
      jobs.erase(old);
    }
  };
  trim(outgoing_);
  trim(incoming_);
}

std::shared_ptr<SourceJob> Jobs::outgoing(const std::string& id) const {
  std::lock_guard lock(mutex_);
  for (const auto& job : outgoing_)
    if (job->id() == id) return job;
  return nullptr;
}

std::shared_ptr<SourceJob> Jobs::of_session(const std::string& session) const {
  std::lock_guard lock(mutex_);
  for (const auto& job : outgoing_)
    if (job->works_on(session)) return job;
  return nullptr;
}

std::shared_ptr<IncomingJob> Jobs::incoming(const std::string& id) const {
  std::lock_guard lock(mutex_);
  // The newest: a source whose ferryd died may not remember how it called its last session.
  for (auto at = incoming_.rbegin(); at != incoming_.rend(); ++at)
    if ((*at)->id() == id) return *at;
  return nullptr;
}

std::vector<api::JobStatus> Jobs::all() const {
  std::lock_guard lock(mutex_);
  std::vector<api::JobStatus> list;
  for (const auto& job : outgoing_) list.push_back(job->status());
  for (const auto& job : incoming_) list.push_back(job->status());
  std::stable_sort(list.begin(), list.end(), [](const auto& x, const auto& y) { return x.started_at < y.started_at; });
  return list;
}

Result<api::JobStatus> Jobs::find(const std::string& id_or_vm) const {
  const auto list = all();
  for (const auto& status : list)
    if (status.id == id_or_vm) return status;
  // By VM: the newest job.
  for (auto at = list.rbegin(); at != list.rend(); ++at)
    if (at->vm == id_or_vm) return *at;
  return make_error(Errc::not_found, "no job " + id_or_vm, 0, "see migrate-ctl jobs");
}

bool Jobs::stop_outgoing() {
  std::vector<std::shared_ptr<SourceJob>> outgoing;
  {
    std::lock_guard lock(mutex_);
    outgoing = outgoing_;
  }
  for (const auto& job : outgoing)
    if (!job->ended()) job->shut_down();
  for (const auto& job : outgoing) job->wait_ended();
  return std::none_of(outgoing.begin(), outgoing.end(),
                      [](const auto& job) { return job->status().owner == api::Owner::unknown; });
}

void Jobs::settle_incoming() {
  std::vector<std::shared_ptr<IncomingJob>> incoming;
  {
    std::lock_guard lock(mutex_);
    incoming = incoming_;
  }
  for (const auto& job : incoming) job->wait_settled();
}

}  // namespace ferry::daemon
