// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "verb.h"

namespace ferry::ctl {
namespace {

// What only the client can see: that the daemon is there, and speaks as we do.
api::Check daemon_check(Client& client) {
  api::Check check{"ferryd", false, "", "", std::nullopt};
  const auto fail = [&](const Error& error) {
    check.detail = error.what;
    check.hint = error.hint;
    check.code = error.code;
    return check;
  };
  const auto json = client.get("/v1/version");
  if (!json.ok()) return fail(json.error());
  const auto info = api::decode_version(*json);
  if (!info.ok()) return fail(info.error());
  check.detail = fmt::format("version {}, client {}", info->version, client_version());
  check.ok = info->api == api::kApiVersion;
  if (!check.ok)
    check.hint = fmt::format("the daemon speaks API {}, this client {}: install the same version",
                             info->api, api::kApiVersion);
  return check;
}

}  // namespace

void add_doctor_options(po::options_description& options) {
  options.add_options()("peer", po::value<std::string>()->value_name("HOST"),
                        "also check the way to this host and its ferryd");
}

int run_doctor(const Invocation& call) {
  Client client(call.socket_path);
  api::DoctorReport report;
  report.checks.push_back(daemon_check(client));
  if (report.ok()) {
    api::DoctorBody body;
    if (call.has("peer")) body.peer = call.options["peer"].as<std::string>();
    const auto json = client.post("/v1/doctor", api::encode(body));
    if (!json.ok()) return print_error(call.console, json.error());
    auto more = api::decode_report(*json);
    if (!more.ok()) return print_error(call.console, more.error());
    for (auto& check : more->checks) report.checks.push_back(std::move(check));
  }
  if (call.console.json)
    print_json(api::encode(report));
  else if (!call.console.quiet)
    print_checks(call.console, report.checks);
  for (const auto& check : report.checks)
    if (!check.ok) return exit_code(check.code.value_or(Errc::failed));
  return 0;
}

}  // namespace ferry::ctl
