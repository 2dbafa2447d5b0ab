// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "follow.h"
#include "report.h"
#include "verb.h"

namespace ferry::ctl {
namespace {

std::vector<api::JobStatus> running(const std::vector<api::JobStatus>& jobs) {
  std::vector<api::JobStatus> out;
  for (const auto& job : jobs)
    if (!api::is_final(job.state)) out.push_back(job);
  return out;
}

// Without a name: the one that runs.
Result<api::JobStatus> choose(Client& client, const std::string& name) {
  if (!name.empty()) return client.find_job(name);
  auto jobs = client.jobs();
  if (!jobs.ok()) return std::move(jobs).error();
  const auto active = running(*jobs);
  if (active.size() == 1) return active.front();
  if (active.empty())
    return make_error(Errc::not_found, "no migration is running", 0,
                      "migrate-ctl jobs lists the ended ones");
  return make_error(Errc::usage, fmt::format("{} migrations are running", active.size()), 0,
                    "name one: migrate-ctl status JOB --watch");
}

int show_all(const Invocation& call, Client& client) {
  const auto jobs = client.jobs();
  if (!jobs.ok()) return print_error(call.console, jobs.error());
  const auto active = running(*jobs);
  if (call.console.json) {
    print_json(api::encode_jobs(active));
    return 0;
  }
  if (active.empty()) {
    print_out("no migration is running");
    if (!jobs->empty() && !call.console.quiet) print_job(call.console, jobs->back());
  }
  for (const auto& job : active) print_job(call.console, job);
  return 0;
}

}  // namespace

void add_status_options(po::options_description& options) {
  options.add_options()
      ("watch,w", "follow the job to its end; exit as migrate would")
      ("progress-json", "with --watch: JSON lines on stderr");
}

int run_status(const Invocation& call) {
  Client client(call.socket_path);
  const bool watch = call.has("watch");
  if (!watch && call.operand(0).empty()) return show_all(call, client);
  const auto job = choose(client, call.operand(0));
  if (!job.ok()) return print_error(call.console, job.error());
  if (!watch) {
    if (call.console.json)
      print_json(api::encode(*job));
    else
      print_job(call.console, *job);
    return 0;
  }
  hold_signals();
  const auto progress = make_progress(call.console, call.has("progress-json"));
  FollowOptions options;
  options.socket_path = call.socket_path;
  options.job_id = job->id;
  return follow_and_report(call.console, options, *progress);
}

}  // namespace ferry::ctl
