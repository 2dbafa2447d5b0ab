// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "units.h"
#include "verb.h"

namespace ferry::ctl {

void add_release_options(po::options_description& options) {
  options.add_options()("unverified", "also when the two copies were never found equal, or no record is left");
}

int run_release(const Invocation& call) {
  Client client(call.socket_path);
  const api::ReleaseBody body{owner_target(call.operand(0)), call.has("unverified")};
  const auto json = client.post("/v1/owners/release", api::encode(body));
  if (!json.ok()) return print_error(call.console, json.error());
  const auto released = api::decode_released(*json);
  if (!released.ok()) return print_error(call.console, released.error());
  if (call.console.json) {
    print_json(*json);
    return 0;
  }
  if (call.console.quiet) return 0;
  for (const auto& path : released->paths) print_out(fmt::format("{}: released", printable(path)));
  return 0;
}

}  // namespace ferry::ctl
