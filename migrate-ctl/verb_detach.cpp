// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "units.h"
#include "verb.h"

namespace ferry::ctl {
namespace {

int detach(const Invocation& call, const api::DetachBody& body) {
  Client client(call.socket_path);
  const auto json = client.post("/v1/volumes/detach", api::encode(body));
  if (!json.ok()) return print_error(call.console, json.error());
  if (call.console.json) {
    print_json(*json);
    return 0;
  }
  std::vector<std::string> paths;
  api::ObjectReader in(*json, "", api::Unknown::lenient);
  in.texts("paths", paths);
  if (const auto read = in.finish(); !read.ok()) return print_error(call.console, read.error());
  if (call.console.quiet) return 0;
  for (const auto& path : paths)
    print_out(fmt::format("{}: filter taken out{}", printable(path),
                          body.release ? ", released" : ""));
  return 0;
}

}  // namespace

void add_detach_options(po::options_description& options) {
  options.add_options()("release", "also a fenced volume: allow writes to it again");
}

int run_detach(const Invocation& call) {
  api::DetachBody body;
  body.path = call.operand(0);
  body.release = call.has("release");
  return detach(call, body);
}

// A path is one volume, anything else the name of a VM.
int run_release(const Invocation& call) {
  api::DetachBody body;
  const std::string what = call.operand(0);
  (what.starts_with('/') ? body.path : body.vm) = what;
  body.release = true;
  return detach(call, body);
}

}  // namespace ferry::ctl
