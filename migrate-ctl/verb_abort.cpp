// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "follow.h"
#include "report.h"
#include "verb.h"

namespace ferry::ctl {

void add_abort_options(po::options_description& options) {
  options.add_options()
      ("discard", "let the destination keep nothing of what was copied")
      ("no-wait", "do not wait for the job to end");
}

// Success means: the VM stays at its source, as it was asked for.
int run_abort(const Invocation& call) {
  Client client(call.socket_path);
  const auto job = client.find_job(call.operand(0));
  if (!job.ok()) return print_error(call.console, job.error());
  hold_signals();
  const auto asked = client.post("/v1/jobs/" + job->id + "/abort",
                                 api::encode(api::AbortBody{call.has("discard")}));
  if (!asked.ok()) return print_error(call.console, asked.error());
  if (call.has("no-wait")) {
    if (call.console.json) print_json(*asked);
    return 0;
  }
  const auto progress = make_progress(call.console, false);
  FollowOptions options;
  options.socket_path = call.socket_path;
  options.job_id = job->id;
  const Followed end = Follower(options, *progress).run();
  if (!end.job || !api::is_final(end.job->state)) {
    print_err(fmt::format("migrate-ctl: how job {} ends was not seen", job->id));
    return end.signal != 0 ? 128 + end.signal : exit_code(Errc::owner_unknown);
  }
  if (end.job->owner == api::Owner::source) {
    if (call.console.json)
      print_json(api::encode(*end.job));
    else if (!call.console.quiet)
      print_out(fmt::format("job {} is aborted; {} stays where it is", job->id, job->vm));
    return 0;
  }
  const int status = report_end(call.console, *end.job);
  if (status != 0) return status;
  return print_error(call.console,
                     make_error(Errc::busy, "the abort came too late: the VM has moved"));
}

}  // namespace ferry::ctl
