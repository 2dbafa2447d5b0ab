// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "units.h"
#include "verb.h"

namespace ferry::ctl {

// The client's own version is told even when no daemon answers.
int run_version(const Invocation& call) {
  Client client(call.socket_path);
  const auto json = client.get("/v1/version");
  api::Json all{{"client", client_version()}, {"api", api::kApiVersion}, {"daemon", nullptr}};
  if (json.ok()) all["daemon"] = *json;
  if (call.console.json) {
    print_json(all);
    return json.ok() ? 0 : print_error(call.console, json.error());
  }
  print_out(fmt::format("migrate-ctl {} (API {})", client_version(), api::kApiVersion));
  if (!json.ok()) return print_error(call.console, json.error());
  const auto info = api::decode_version(*json);
  if (!info.ok()) return print_error(call.console, info.error());
  print_out(fmt::format("ferryd {} on {} (API {}, peer protocol {})", printable(info->version),
                        printable(info->host), info->api, info->protocol));
  print_out(info->module ? fmt::format("dm-ferry {}", printable(*info->module))
                         : "dm-ferry is not loaded");
  return 0;
}

}  // namespace ferry::ctl
