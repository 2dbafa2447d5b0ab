// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "follow.h"
#include "report.h"
#include "units.h"
#include "verb.h"

namespace ferry::ctl {
namespace {

Status read_roles(const Invocation& call, api::StartRequest& request) {
  if (!call.has("role")) return ok_status();
  for (const auto& text : call.options["role"].as<std::vector<std::string>>()) {
    const size_t equals = text.find('=');
    const auto role = equals == std::string::npos
                          ? std::nullopt
                          : api::role_from_name(std::string_view(text).substr(equals + 1));
    if (!role || equals == 0)
      return make_error(Errc::usage, fmt::format("--role {} is not understood", text), 0,
                        "write --role DISK=data, DISK=swap or DISK=scratch, for example vdb=swap");
    const auto target = text.substr(0, equals);
    if (!request.roles.emplace(target, *role).second)
      return make_error(Errc::usage, fmt::format("--role names {} twice", target));
  }
  return ok_status();
}

// Reads option `name` with `parse` into `out`; the error names the option.
template <typename Parse>
Status read_option(const Invocation& call, const char* name, std::optional<uint64_t>& out,
                   Parse parse) {
  if (!call.has(name)) return ok_status();
  Result<uint64_t> value = parse(call.options[name].as<std::string>());
  if (!value.ok()) {
    Error error = std::move(value).error();
    error.what = fmt::format("--{}: {}", name, error.what);
    return error;
  }
  out = *value;
  return ok_status();
}

Result<api::StartRequest> read_request(const Invocation& call) {
  api::StartRequest request;
  request.vm = call.operand(0);
  request.destination = call.operand(1);
  request.create = call.has("create");
  FERRY_TRY(read_roles(call, request));
  FERRY_TRY(read_option(call, "max-downtime", request.max_downtime_ms,
                        [](const std::string& text) { return parse_duration_ms(text, 1); }));
  FERRY_TRY(read_option(call, "bandwidth", request.bandwidth_bytes_per_s,
                        [](const std::string& text) { return parse_size(text); }));
  const auto read_seconds = [&call](const char* name, std::optional<uint64_t>& out) -> Status {
    std::optional<uint64_t> ms;
    FERRY_TRY(read_option(call, name, ms, [](const std::string& text) {
      return parse_duration_ms(text, 1000);
    }));
    if (ms) out = (*ms + 999) / 1000;
    return ok_status();
  };
  FERRY_TRY(read_seconds("timeout", request.timeout_s));
  FERRY_TRY(read_seconds("keep", request.keep_s));
  FERRY_TRY(read_seconds("retry-for", request.retry_for_s));
  if (call.has("streams")) request.streams = call.options["streams"].as<unsigned>();
  // The bounds are the API's: what we would send is read as the daemon reads it.
  FERRY_TRY(api::decode_start(api::encode(request)));
  return request;
}

int dry_run(const Invocation& call, Client& client, const api::StartRequest& request) {
  auto json = client.post("/v1/plan", api::encode(request));
  if (!json.ok()) return print_error(call.console, json.error());
  const auto plan = api::decode_plan(*json);
  if (!plan.ok()) return print_error(call.console, plan.error());
  if (call.console.json)
    print_json(*json);
  else if (!call.console.quiet)
    print_plan(call.console, *plan);
  for (const auto& check : plan->checks)
    if (!check.ok) return exit_code(check.code.value_or(Errc::failed));
  return 0;
}

}  // namespace

void add_migrate_options(po::options_description& options) {
  options.add_options()
      ("dry-run,n", "only tell what would happen, and check whether it can")
      ("create", "create missing volumes on the destination, of equal size")
      ("role", po::value<std::vector<std::string>>()->value_name("DISK=ROLE"),
       "treat a disk as data, swap or scratch (vdb=swap); may be repeated")
      ("max-downtime", po::value<std::string>()->value_name("MS"),
       "how long the guest may stand still (300, 300ms, 1.5s)")
      ("bandwidth", po::value<std::string>()->value_name("RATE"),
       "upper limit in bytes per second (100M, 100MB, 1Gbit)")
      ("streams", po::value<unsigned>()->value_name("N"), "number of parallel connections")
      ("timeout", po::value<std::string>()->value_name("S"),
       "give up after this time (600, 10m, 2h)")
      ("keep", po::value<std::string>()->value_name("S"),
       "how long the destination keeps what was copied if the migration is called off (24h; 0: not at all)")
      ("retry-for", po::value<std::string>()->value_name("S"),
       "how long to try again when the link breaks (10m; 0: not at all)")
      ("detach", "start the job and return at once")
      ("progress-json", "show the progress as JSON lines on stderr");
}

int run_migrate(const Invocation& call) {
  const auto request = read_request(call);
  if (!request.ok()) return print_error(call.console, request.error());
  Client client(call.socket_path);
  if (call.has("dry-run")) return dry_run(call, client, *request);

  hold_signals();
  auto answer = client.post("/v1/jobs", api::encode(*request));
  if (!answer.ok()) return print_error(call.console, answer.error());
  const std::string id = answer->value("id", "");
  if (call.has("detach")) {
    if (call.console.json)
      print_json(api::Json{{"id", id}});
    else if (!call.console.quiet)
      print_out(fmt::format("job {} started; watch it with: migrate-ctl status {} --watch", id,
                            id));
    return 0;
  }
  const auto progress = make_progress(call.console, call.has("progress-json"));
  FollowOptions options;
  options.socket_path = call.socket_path;
  options.job_id = id;
  options.abort_on_interrupt = true;
  return follow_and_report(call.console, options, *progress);
}

}  // namespace ferry::ctl
