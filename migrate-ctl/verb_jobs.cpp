// SPDX-License-Identifier: GPL-2.0-or-later
#include "report.h"
#include "units.h"
#include "verb.h"

namespace ferry::ctl {

int run_jobs(const Invocation& call) {
  Client client(call.socket_path);
  const auto jobs = client.jobs();
  if (!jobs.ok()) return print_error(call.console, jobs.error());
  if (call.console.json) {
    print_json(api::encode_jobs(*jobs));
  } else if (call.console.quiet) {
    // Only the ids, for scripts and for the completion.
    for (const auto& job : *jobs) print_out(printable(job.id));
  } else {
    print_jobs(call.console, *jobs);
  }
  return 0;
}

}  // namespace ferry::ctl
