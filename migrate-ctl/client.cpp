// SPDX-License-Identifier: GPL-2.0-or-later
#include "client.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>

#include "base/fd.h"

namespace ferry::ctl {
namespace {

// A plan and a doctor ask the peer, an attach waits for I/O in flight.
constexpr time_t kAnswerTimeoutS = 120;

bool is_token(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

Result<api::Json> read_answer(const httplib::Result& result, const std::string& socket_path) {
  if (!result)
    return make_error(Errc::failed,
                      fmt::format("ferryd did not answer on {}: {}", socket_path,
                                  httplib::to_string(result.error())),
                      0, "look at: systemctl status ferryd");
  auto json = api::parse_json(result->body, Errc::protocol);
  if (json.ok() && result->status < 400) return json;
  if (json.ok() && json->is_object() && json->contains("error")) {
    auto remote = api::decode_error(json->at("error"));
    if (remote.ok()) return std::move(remote->error);
  }
  return make_error(Errc::protocol,
                    fmt::format("{} answered something that is not ferryd's API (HTTP status {})",
                                socket_path, result->status));
}

std::string with_target(const std::string& path, const api::OwnerTarget& target) {
  httplib::Params query;
  if (!target.vm.empty()) query.emplace("vm", target.vm);
  if (!target.path.empty()) query.emplace("path", target.path);
  return query.empty() ? path : httplib::append_query_params(path, query);
}

}  // namespace

Client::Client(std::string socket_path)
    : socket_path_(std::move(socket_path)),
      http_(std::make_unique<httplib::Client>(socket_path_, 80)) {
  http_->set_address_family(AF_UNIX);
  http_->set_default_headers({{"Host", "ferryd"}});
  http_->set_connection_timeout(10);
  http_->set_read_timeout(kAnswerTimeoutS);
  http_->set_write_timeout(10);
}

Client::~Client() = default;

// httplib does not say why it cannot connect, and the reason decides what to do about it.
Status Client::probe() const {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path_.empty() || socket_path_.size() >= sizeof address.sun_path)
    return make_error(Errc::usage, "the socket path \"" + socket_path_ + "\" is empty or too long");
  socket_path_.copy(address.sun_path, sizeof address.sun_path - 1);
  const Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return sys_error("cannot create a unix socket", errno);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
    return ok_status();
  const int sys = errno;
  if (sys == EACCES || sys == EPERM)
    return make_error(Errc::permission, "no right to use ferryd's socket " + socket_path_, sys,
                      "run it as root, or join the group ferry");
  if (sys == ENOENT || sys == ECONNREFUSED || sys == ENOTSOCK || sys == ENOTDIR)
    return make_error(Errc::failed,
                      "ferryd is not running: nobody listens on " + socket_path_, sys,
                      "start it with: systemctl start ferryd");
  return make_error(Errc::failed, "cannot reach ferryd on " + socket_path_, sys);
}

Result<api::Json> Client::get(const std::string& path) {
  FERRY_TRY(probe());
  return read_answer(http_->Get(path), socket_path_);
}

Result<api::Json> Client::post(const std::string& path, const api::Json& body) {
  FERRY_TRY(probe());
  return read_answer(http_->Post(path, api::write_json(body), "application/json"), socket_path_);
}

Status Client::events(const std::string& job_id,
                      const std::function<bool(const api::Json&)>& on_event) {
  FERRY_TRY(probe());
  std::string text;
  Status bad = ok_status();
  int status = 0;
  const auto result = http_->Get(
      "/v1/events?job=" + job_id,
      [&](const httplib::Response& response) {
        status = response.status;
        return true;
      },
      [&](const char* data, size_t size) {
        text.append(data, size);
        if (status >= 400) return true;  // an error document: read as a whole below
        for (size_t end; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
          auto line = api::parse_json(std::string_view(text).substr(0, end), Errc::protocol);
          if (!line.ok()) {
            bad = std::move(line).error();
            return false;
          }
          if (!on_event(*line)) return false;
        }
        return true;
      });
  FERRY_TRY(std::move(bad));
  if (status < 400) {
    if (!result && result.error() != httplib::Error::Canceled)
      return make_error(Errc::failed, "the connection to ferryd broke: " +
                                          httplib::to_string(result.error()));
    return ok_status();
  }
  auto document = api::parse_json(text, Errc::protocol);
  if (document.ok() && document->is_object() && document->contains("error"))
    if (auto remote = api::decode_error(document->at("error")); remote.ok())
      return std::move(remote->error);
  return make_error(Errc::protocol, fmt::format("ferryd refused the events: status {}", status));
}

void Client::cancel() { http_->stop(); }

Result<api::Json> Client::owners(const api::OwnerTarget& target) { return get(with_target("/v1/owners", target)); }

Result<api::Json> Client::definition(const api::OwnerTarget& target) {
  return get(with_target("/v1/owners/definition", target));
}

Result<std::vector<api::JobStatus>> Client::jobs() {
  auto json = get("/v1/jobs");
  if (!json.ok()) return std::move(json).error();
  return api::decode_jobs(*json);
}

Result<api::JobStatus> Client::job(const std::string& id) {
  auto json = get("/v1/jobs/" + id);
  if (!json.ok()) return std::move(json).error();
  return api::decode_job(*json);
}

Result<api::JobStatus> Client::find_job(const std::string& id_or_vm) {
  auto all = jobs();
  if (!all.ok()) return std::move(all).error();
  const api::JobStatus* best = nullptr;
  for (const auto& job : *all) {
    if (job.id == id_or_vm && is_token(id_or_vm)) return job;
    if (job.vm != id_or_vm) continue;
    // Oldest first: a later one wins, unless only the earlier one still runs.
    if (best == nullptr || api::is_final(best->state) || !api::is_final(job.state)) best = &job;
  }
  if (best != nullptr) return *best;
  return make_error(Errc::not_found, "there is no job and no moved VM \"" + id_or_vm + "\"", 0,
                    "migrate-ctl jobs lists them");
}

}  // namespace ferry::ctl
