// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>

#include "follow.h"
#include "owner_report.h"
#include "units.h"
#include "verb.h"

namespace ferry::ctl {
namespace {

int show(const Invocation& call, Client& client) {
  const auto json = client.owners(owner_target(call.operand(0)));
  if (!json.ok()) return print_error(call.console, json.error());
  const auto list = api::decode_owners(*json);
  if (!list.ok()) return print_error(call.console, list.error());
  if (call.console.json)
    print_json(*json);
  else if (call.console.quiet)
    for (const auto& disk : list->disks) print_out(printable(disk.path));
  else
    print_owners(call.console, *list);
  return 0;
}

int print_definition(const Invocation& call, Client& client) {
  const auto json = client.definition(owner_target(call.operand(0)));
  if (!json.ok()) return print_error(call.console, json.error());
  const auto definition = api::decode_definition(*json);
  if (!definition.ok()) return print_error(call.console, definition.error());
  if (call.console.json) {
    print_json(*json);
    return 0;
  }
  // For virsh as it is; a terminal gets nothing that it would obey.
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  std::istringstream lines(definition->xml);
  for (std::string line; std::getline(lines, line);) print_out(terminal ? printable(line) : line);
  return 0;
}

// Whom a force would concern; nothing when that is not one migration, which ferryd refuses by itself.
std::optional<std::string> vm_concerned(Client& client, const api::OwnerTarget& target) {
  const auto json = client.owners(target);
  if (!json.ok()) return std::nullopt;
  const auto list = api::decode_owners(*json);
  if (!list.ok() || list->disks.empty()) return std::nullopt;
  for (const auto& disk : list->disks)
    if (disk.session != list->disks.front().session) return std::nullopt;
  const auto& vm = list->disks.front().vm;
  return vm.empty() ? target.name() : vm;
}

// A name to type is no obstacle to somebody who means it, but one to a line taken out of the shell's history.
Status confirm(const Invocation& call, const Error& risk, const std::string& vm) {
  print_err(fmt::format("{} {}", tinted(call.console.color_err, Tint::warn, "risk:"), printable(risk.what)));
  std::fputs(fmt::format("Type the name of the VM ({}) to take its disks by force: ", printable(vm)).c_str(), stderr);
  std::string typed;
  std::getline(std::cin, typed);
  if (typed == vm) return ok_status();
  return make_error(Errc::aborted, fmt::format("\"{}\" is not the name: nothing was changed", typed));
}

// The job does the rest, the guest included. Success means that the disks are this host's.
int wait_for_job(const Invocation& call, const std::string& id) {
  const auto progress = make_progress(call.console, false);
  FollowOptions options;
  options.socket_path = call.socket_path;
  options.job_id = id;
  const Followed end = Follower(options, *progress).run();
  if (!end.job || !api::is_final(end.job->state)) {
    print_err(fmt::format("migrate-ctl: how job {} ends was not seen", printable(id)));
    return end.signal != 0 ? 128 + end.signal : exit_code(Errc::owner_unknown);
  }
  if (end.job->owner != api::Owner::source)
    return print_error(call.console,
                       make_error(Errc::owner_unknown,
                                  fmt::format("job {} has ended, and the disks of {} are not this host's", id,
                                              end.job->vm),
                                  0, "see migrate-ctl own " + end.job->vm));
  if (call.console.json)
    print_json(api::encode(*end.job));
  else if (!call.console.quiet)
    print_out(fmt::format("{}: its disks are this host's again, by job {}", printable(end.job->vm), printable(id)));
  return 0;
}

int report_forced(const Invocation& call, const api::Json& json) {
  const auto forced = api::decode_forced(json);
  if (!forced.ok()) return print_error(call.console, forced.error());
  if (forced->job) return wait_for_job(call, *forced->job);
  if (call.console.json) {
    print_json(json);
    return 0;
  }
  if (call.console.quiet) return 0;
  print_out(fmt::format("{}: its disks are this host's, generation {}; it is not started", printable(forced->vm),
                        forced->generation.value_or(0)));
  for (const auto& path : forced->paths) print_out(fmt::format("  {}", printable(path)));
  return 0;
}

int force(const Invocation& call, Client& client) {
  api::ForceBody body{owner_target(call.operand(0)), false};
  const auto post = [&] { return client.post("/v1/owners/force", api::encode(body)); };
  const bool vouches = call.has("peer-is-dead");
  if (vouches && !call.has("yes") && ::isatty(STDIN_FILENO) == 1) {
    if (const auto vm = vm_concerned(client, body.target)) {
      // Asked without the word, ferryd tells the risk, or does what is none.
      const auto first = post();
      if (first.ok()) return report_forced(call, *first);
      if (first.error().code != Errc::usage) return print_error(call.console, first.error());
      if (const auto meant = confirm(call, first.error(), *vm); !meant.ok())
        return print_error(call.console, meant.error());
    }
  }
  hold_signals();
  body.peer_is_dead = vouches;
  const auto json = post();
  if (!json.ok()) return print_error(call.console, json.error());
  return report_forced(call, *json);
}

}  // namespace

api::OwnerTarget owner_target(const std::string& operand) {
  api::OwnerTarget target;
  (operand.starts_with('/') ? target.path : target.vm) = operand;
  return target;
}

void add_own_options(po::options_description& options) {
  options.add_options()
      ("definition", "print libvirt's XML of the VM, to start it from when its guest was lost on the way")
      ("force", "take the disks for this host: the operator's override")
      ("peer-is-dead", "with --force: vouch that the other host is off and stays off")
      ("yes", "with --force: do not ask on a terminal");
}

int run_own(const Invocation& call) {
  Client client(call.socket_path);
  if (call.has("force") && call.has("definition"))
    return print_error(call.console, make_error(Errc::usage, "own takes --force or --definition, not both", 0,
                                                "see: migrate-ctl help own"));
  for (const char* option : {"force", "definition"})
    if (call.has(option) && call.operand(0).empty())
      return print_error(call.console, make_error(Errc::usage, fmt::format("own --{} needs a VM or a volume", option), 0,
                                                  "migrate-ctl own lists them"));
  if (call.has("force")) return force(call, client);
  for (const char* option : {"peer-is-dead", "yes"})
    if (call.has(option))
      return print_error(call.console,
                         make_error(Errc::usage, fmt::format("own --{} means nothing without --force", option), 0,
                                    "see: migrate-ctl help own"));
  return call.has("definition") ? print_definition(call, client) : show(call, client);
}

}  // namespace ferry::ctl
