// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/api_backend.h"

#include <algorithm>

namespace ferry::api {

Result<std::vector<std::string>> ApiBackend::release_vm(const std::string& vm) {
  auto all = jobs();
  if (!all.ok()) return std::move(all).error();
  const auto moved = std::find_if(all->rbegin(), all->rend(), [&](const JobStatus& job) {
    return job.vm == vm && job.direction == Direction::out && job.owner == Owner::destination &&
           is_final(job.state);
  });
  if (moved == all->rend())
    return make_error(Errc::not_found, "no finished migration of the VM \"" + vm +
                      "\" away from this host is known", 0,
                      "release its volumes one by one: migrate-ctl volumes lists them");
  std::vector<std::string> paths;
  for (const auto& disk : moved->disks) {
    if (auto done = detach_volume(disk.path, true); !done.ok()) {
      Error error = std::move(done).error();
      if (!paths.empty()) error.what += " (already released: " + std::to_string(paths.size()) + ")";
      return error;
    }
    paths.push_back(disk.path);
  }
  return paths;
}

}  // namespace ferry::api
