// SPDX-License-Identifier: GPL-2.0-or-later
#include "units.h"
#include "verb.h"

namespace ferry::ctl {

int run_volumes(const Invocation& call) {
  Client client(call.socket_path);
  const auto json = client.get("/v1/volumes");
  if (!json.ok()) return print_error(call.console, json.error());
  const auto volumes = api::decode_volumes(*json);
  if (!volumes.ok()) return print_error(call.console, volumes.error());
  if (call.console.json) {
    print_json(*json);
    return 0;
  }
  if (call.console.quiet) {
    for (const auto& volume : *volumes) print_out(printable(volume.path));
    return 0;
  }
  Table table({"volume", "mode", "state", "filter", "size", "block", "dirty", "job"});
  for (const auto& volume : *volumes)
    table.add({volume.path, volume.mode, volume.state, std::string(api::name_of(volume.method)),
               format_size(volume.size_bytes), format_size(volume.block_size_bytes),
               format_size(volume.dirty_blocks * volume.block_size_bytes),
               volume.job.value_or("-")});
  table.print(call.console);
  return 0;
}

}  // namespace ferry::ctl
