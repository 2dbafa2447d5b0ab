// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "units.h"
#include "verb.h"

namespace ferry::ctl {

int run_attach(const Invocation& call) {
  Client client(call.socket_path);
  const api::AttachBody body{call.operand(0)};
  const auto json = client.post("/v1/volumes/attach", api::encode(body));
  if (!json.ok()) return print_error(call.console, json.error());
  const auto volume = api::decode_volume(*json);
  if (!volume.ok()) return print_error(call.console, volume.error());
  if (call.console.json)
    print_json(*json);
  else if (!call.console.quiet)
    print_out(fmt::format("{}: filter attached, {}, blocks of {}", printable(volume->path),
                          printable(volume->state), format_size(volume->block_size_bytes)));
  return 0;
}

}  // namespace ferry::ctl
