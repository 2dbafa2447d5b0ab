// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "units.h"
#include "verb.h"

namespace ferry::ctl {

int run_detach(const Invocation& call) {
  Client client(call.socket_path);
  const api::DetachBody body{call.operand(0)};
  const auto json = client.post("/v1/volumes/detach", api::encode(body));
  if (!json.ok()) return print_error(call.console, json.error());
  if (call.console.json)
    print_json(*json);
  else if (!call.console.quiet)
    print_out(fmt::format("{}: filter taken out", printable(body.path)));
  return 0;
}

}  // namespace ferry::ctl
