// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "client.h"
#include "verb.h"

namespace ferry::ctl {
namespace {

int ask(const Invocation& call, const std::string& what, const char* answer) {
  Client client(call.socket_path);
  const auto job = client.find_job(call.operand(0));
  if (!job.ok()) return print_error(call.console, job.error());
  const auto asked = client.post("/v1/jobs/" + job->id + "/" + what, api::Json::object());
  if (!asked.ok()) return print_error(call.console, asked.error());
  if (call.console.json)
    print_json(*asked);
  else if (!call.console.quiet)
    print_out(fmt::format("job {} {}; watch it with: migrate-ctl status {} --watch", job->id, answer,
                          job->id));
  return 0;
}

}  // namespace

int run_pause(const Invocation& call) { return ask(call, "pause", "stops copying"); }
int run_resume(const Invocation& call) { return ask(call, "resume", "goes on"); }

}  // namespace ferry::ctl
