// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/api_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <list>
#include <regex>
#include <thread>

#include "api/http_stream.h"
#include "api/unix_socket.h"
#include "base/log.h"

namespace ferry::api {
namespace {

using httplib::Request;
using httplib::Response;

// Our largest request is a start request with 256 roles: about 10 KiB.
constexpr size_t kBodyBytesMax = 64 * 1024;
// How long, and for how much, a refused client may go on sending.
constexpr std::chrono::seconds kLingerTime{2};
constexpr size_t kLingerBytesMax = 1 << 20;
constexpr size_t kKeepAliveRequestsMax = 1000;
// How soon a watcher that went away is noticed when there is nothing to send.
constexpr std::chrono::milliseconds kWatchSlice{1'000};

void reply(Response& res, int status, const Json& body) {
  res.status = status;
  res.set_content(write_json(body) + "\n", "application/json");
}

void reply_error(Response& res, const Error& error, int status = 0) {
  reply(res, status != 0 ? status : http_status(error.code), Json{{"error", encode(error)}});
}

// Who is at the other end, for the handlers below httplib, which knows no such thing.
struct Caller {
  PeerCredentials credentials;
  bool allowed = false;
  bool close = false;  // the rest of a refused request would be taken for the next one
};
thread_local Caller* current_caller = nullptr;

void close_after(Response& res) {
  res.set_header("Connection", "close");
  current_caller->close = true;
}

// httplib as parser and router only: sockets and threads are ours.
class Router : public httplib::Server {
 public:
  // httplib takes an invalid value of its own listening socket as the sign to stop streaming.
  void set_running(int fd) { svr_sock_ = fd; }
  void set_stopping() { svr_sock_ = INVALID_SOCKET; }
  bool serve(HttpStream& stream, bool last) {
    bool closed = false;
    return process_request(stream, last, closed, nullptr) && !closed;
  }
};

// What an event stream still has to say. Lives as long as its response.
struct Watch {
  std::unique_ptr<EventFeed::Subscription> subscription;
  std::string first;         // snapshot, not yet sent
  bool one_job = false;
  bool ended = false;        // the job's last state is in `first`
  std::chrono::steady_clock::time_point last_line = std::chrono::steady_clock::now();
};

}  // namespace

int http_status(Errc code) {
  switch (code) {
    case Errc::usage:
      return 400;
    case Errc::permission:
      return 403;
    case Errc::not_found:
      return 404;
    case Errc::busy:
    case Errc::aborted:
      return 409;
    case Errc::no_space:
    case Errc::size_mismatch:
    case Errc::unsupported:
    case Errc::not_converged:
      return 422;
    case Errc::peer_unreachable:
    case Errc::peer_refused:
    case Errc::protocol:
      return 502;
    case Errc::timeout:
      return 504;
    case Errc::failed:
    case Errc::io:
    case Errc::verify_mismatch:
    case Errc::cleanup_incomplete:
    case Errc::owner_unknown:
      return 500;
  }
  return 500;
}

class ApiServer::Impl {
 public:
  Impl(const ApiServerOptions& options, ApiBackend& backend, EventFeed& feed,
       UnixListener listener, std::optional<gid_t> group, Fd stop_fd)
      : options_(options),
        limits_{options.request_timeout, options.write_timeout, 2 * kBodyBytesMax},
        backend_(backend),
        feed_(feed),
        group_(group),
        listener_(std::move(listener)),
        stop_fd_(std::move(stop_fd)) {
    set_up_routes();
    router_.set_running(listener_->fd());
    acceptor_ = std::jthread([this] { accept_loop(); });
  }

  ~Impl() { stop(); }

  void stop() {
    if (!listener_) return;
    stop_.request_stop();
    router_.set_stopping();
    const uint64_t one = 1;
    // Cannot fail: the counter is far from its end. Wakes every poll() at once and for good.
    (void)!::write(stop_fd_.get(), &one, sizeof one);
    acceptor_.join();
    connections_.clear();
    listener_.reset();
  }

 private:
  struct Connection {
    std::atomic<bool> done{false};
    std::jthread thread;
  };
  using Handler = void (Impl::*)(const Request&, Response&);
  struct Route {
    const char* method;
    const char* pattern;
    Handler handler;
  };
  static const std::array<Route, 17> kRoutes;

  void set_up_routes();
  void accept_loop();
  void start_connection(Fd socket);
  void let_it_finish(int fd);
  void serve_connection(int fd);
  void refuse(int fd, int status, const Error& error);
  httplib::Server::HandlerResponse check_request(const Request& req, Response& res);
  void describe_failure(const Request& req, Response& res);

  void get_version(const Request& req, Response& res);
  void post_plan(const Request& req, Response& res);
  void get_jobs(const Request& req, Response& res);
  void post_job(const Request& req, Response& res);
  void get_job(const Request& req, Response& res);
  void post_abort(const Request& req, Response& res);
  void post_pause(const Request& req, Response& res);
  void post_resume(const Request& req, Response& res);
  void acknowledge(Response& res, const std::string& id, const char* verb, const Status& done);
  void get_events(const Request& req, Response& res);
  void get_volumes(const Request& req, Response& res);
  void post_attach(const Request& req, Response& res);
  void post_detach(const Request& req, Response& res);
  void get_owners(const Request& req, Response& res);
  void get_definition(const Request& req, Response& res);
  void post_force(const Request& req, Response& res);
  void post_release(const Request& req, Response& res);
  void post_doctor(const Request& req, Response& res);
  Status fill_snapshot(Watch& watch, const std::optional<std::string>& job);
  bool feed_watch(Watch& watch, httplib::DataSink& sink);

  // Parses and decodes the body; answers with the error and returns nothing if that fails.
  template <typename Body>
  std::optional<Body> body_of(const Request& req, Response& res,
                              Result<Body> (*decode)(const Json&)) {
    auto json = parse_json(req.body.empty() ? "{}" : req.body, Errc::usage);
    if (json.ok()) {
      auto body = decode(*json);
      if (body.ok()) return std::move(*body);
      reply_error(res, body.error());
    } else {
      reply_error(res, json.error());
    }
    return std::nullopt;
  }

  // The same for the query parameters.
  template <typename Query>
  std::optional<Query> query_of(const Request& req, Response& res, Result<Query> (*decode)(const Json&)) {
    Json json = Json::object();
    for (const auto& [name, value] : req.params) {
      if (json.contains(name)) {
        reply_error(res, make_error(Errc::usage, "the query parameter " + name + " appears twice"));
        return std::nullopt;
      }
      json[name] = value;
    }
    auto query = decode(json);
    if (query.ok()) return std::move(*query);
    reply_error(res, query.error());
    return std::nullopt;
  }

  const ApiServerOptions options_;
  const StreamLimits limits_;
  ApiBackend& backend_;
  EventFeed& feed_;
  const std::optional<gid_t> group_;
  std::optional<UnixListener> listener_;
  Fd stop_fd_;
  std::stop_source stop_;
  Router router_;
  std::list<Connection> connections_;  // touched by the acceptor, and by stop() after its end
  std::jthread acceptor_;
};

const std::array<ApiServer::Impl::Route, 17> ApiServer::Impl::kRoutes{{
    {"GET", "/v1/version", &Impl::get_version},
    {"POST", "/v1/plan", &Impl::post_plan},
    {"GET", "/v1/jobs", &Impl::get_jobs},
    {"POST", "/v1/jobs", &Impl::post_job},
    {"GET", "/v1/jobs/([^/]+)", &Impl::get_job},
    {"POST", "/v1/jobs/([^/]+)/abort", &Impl::post_abort},
    {"POST", "/v1/jobs/([^/]+)/pause", &Impl::post_pause},
    {"POST", "/v1/jobs/([^/]+)/resume", &Impl::post_resume},
    {"GET", "/v1/events", &Impl::get_events},
    {"GET", "/v1/volumes", &Impl::get_volumes},
    {"POST", "/v1/volumes/attach", &Impl::post_attach},
    {"POST", "/v1/volumes/detach", &Impl::post_detach},
    {"GET", "/v1/owners", &Impl::get_owners},
    {"GET", "/v1/owners/definition", &Impl::get_definition},
    {"POST", "/v1/owners/force", &Impl::post_force},
    {"POST", "/v1/owners/release", &Impl::post_release},
    {"POST", "/v1/doctor", &Impl::post_doctor},
}};

void ApiServer::Impl::set_up_routes() {
  router_.set_payload_max_length(kBodyBytesMax);
  for (const auto& route : kRoutes) {
    const auto call = [this, handler = route.handler](const Request& req, Response& res) {
      (this->*handler)(req, res);
    };
    if (std::string_view(route.method) == "GET")
      router_.Get(route.pattern, call);
    else
      router_.Post(route.pattern, httplib::Server::Handler(call));
  }
  router_.set_pre_routing_handler(
      [this](const Request& req, Response& res) { return check_request(req, res); });
  router_.set_error_handler(httplib::Server::Handler(
      [this](const Request& req, Response& res) { describe_failure(req, res); }));
  router_.set_exception_handler([](const Request&, Response& res, std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::exception& e) {
      reply_error(res, make_error(Errc::failed, std::string("internal error: ") + e.what()));
    } catch (...) {
      reply_error(res, make_error(Errc::failed, "internal error"));
    }
  });
}

httplib::Server::HandlerResponse ApiServer::Impl::check_request(const Request& req,
                                                                Response& res) {
  using enum httplib::Server::HandlerResponse;
  if (!current_caller->allowed) {
    reply_error(res, make_error(Errc::permission, "this user may not use the admin API", 0,
                                "be root or a member of the group " + options_.admin_group));
    return Handled;
  }
  // A packed body would unfold beyond every limit; ours are small.
  if (req.has_header("Content-Encoding")) {
    reply_error(res, make_error(Errc::usage, "packed request bodies are not taken"), 415);
    close_after(res);
    return Handled;
  }
  for (const auto& [name, value] : req.params) {
    if (req.path == "/v1/events" && name == "job") continue;
    const bool of_owners = req.path == "/v1/owners" || req.path == "/v1/owners/definition";
    if (of_owners && (name == "vm" || name == "path")) continue;
    reply_error(res, make_error(Errc::usage, "unknown query parameter \"" + name + "\""));
    return Handled;
  }
  return Unhandled;
}

// httplib calls this for every status >= 400; those with a body are already ours.
void ApiServer::Impl::describe_failure(const Request& req, Response& res) {
  if (!res.body.empty()) return;
  if (res.status != 404) close_after(res);
  if (res.status == 413)
    return reply_error(res, make_error(Errc::usage, "the request body is longer than 64 KiB"), 413);
  if (res.status != 404)
    return reply_error(res, make_error(Errc::usage, "not a request of this API"), res.status);
  for (const auto& route : kRoutes) {
    if (!std::regex_match(req.path, std::regex(route.pattern))) continue;
    return reply_error(res, make_error(Errc::usage, req.method + " is not possible on " + req.path),
                       405);
  }
  reply_error(res, make_error(Errc::not_found, "there is no " + req.path + " in this API", 0,
                              "docs/api.md lists what there is"));
}

// ---- connections -------------------------------------------------------------------------------

void ApiServer::Impl::accept_loop() {
  while (!stop_.stop_requested()) {
    pollfd fds[2] = {{listener_->fd(), POLLIN, 0}, {stop_fd_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) break;
    if (fds[1].revents != 0) break;
    Fd socket(::accept4(listener_->fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket.valid()) {
      start_connection(std::move(socket));
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
      // Out of descriptors or memory: the client keeps waiting in the backlog; do not spin.
      spdlog::warn("api: cannot accept a connection: errno {}", errno);
      ::poll(fds + 1, 1, 200);
    }
  }
}

void ApiServer::Impl::start_connection(Fd socket) {
  std::erase_if(connections_, [](const Connection& c) { return c.done.load(); });
  if (connections_.size() >= options_.connections_max) {
    refuse(socket.get(), 503,
           make_error(Errc::busy, "too many connections to the admin API", 0,
                      "end some of the watching clients"));
    return;
  }
  auto& connection = connections_.emplace_back();
  connection.thread = std::jthread([this, &connection, socket = std::move(socket)] {
    try {
      serve_connection(socket.get());
    } catch (const std::exception& e) {
      spdlog::error("api: a connection ended: {}", e.what());
    }
    ::shutdown(socket.get(), SHUT_RDWR);
    connection.done = true;
  });
}

void ApiServer::Impl::serve_connection(int fd) {
  auto credentials = peer_credentials(fd);
  if (!credentials.ok()) {
    spdlog::error("api: {}", credentials.error().message());
    return;
  }
  Caller caller{*credentials, peer_may_administer(*credentials, group_), false};
  if (!caller.allowed)
    spdlog::warn("api: refused uid {} pid {}", caller.credentials.uid, caller.credentials.pid);
  current_caller = &caller;
  HttpStream stream(fd, stop_fd_.get(), limits_);
  for (size_t n = 1; n <= kKeepAliveRequestsMax; ++n) {
    if (!stream.wait_for_request(options_.keep_alive_timeout)) break;
    const bool last = n == kKeepAliveRequestsMax || !caller.allowed;
    if (!router_.serve(stream, last) || last || caller.close || stream.broken()) break;
  }
  current_caller = nullptr;
  if (caller.close) let_it_finish(fd);
}

// A request that was refused by its head may still be on its way. Closing now would break the client's
// sending, and it would never read why: so what it still sends is read and forgotten, within bounds.
void ApiServer::Impl::let_it_finish(int fd) {
  ::shutdown(fd, SHUT_WR);
  const auto deadline = std::chrono::steady_clock::now() + kLingerTime;
  std::array<char, 4096> forgotten;
  for (size_t bytes = 0; bytes < kLingerBytesMax;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    std::array<pollfd, 2> waiters{{{fd, POLLIN, 0}, {stop_fd_.get(), POLLIN, 0}}};
    if (left.count() <= 0 || ::poll(waiters.data(), waiters.size(), static_cast<int>(left.count())) <= 0) return;
    if (waiters[1].revents != 0) return;
    const ssize_t n = ::recv(fd, forgotten.data(), forgotten.size(), 0);
    if (n <= 0) return;
    bytes += static_cast<size_t>(n);
  }
}

void ApiServer::Impl::refuse(int fd, int status, const Error& error) {
  const std::string body = write_json(Json{{"error", encode(error)}}) + "\n";
  const std::string text = "HTTP/1.1 " + std::to_string(status) +
                           " Refused\r\nContent-Type: application/json\r\nConnection: close\r\n"
                           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  // A fresh socket's buffer always holds these few hundred bytes.
  (void)!::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

// ---- requests ----------------------------------------------------------------------------------

void ApiServer::Impl::get_version(const Request&, Response& res) {
  const auto info = backend_.version();
  info.ok() ? reply(res, 200, encode(*info)) : reply_error(res, info.error());
}

void ApiServer::Impl::post_plan(const Request& req, Response& res) {
  const auto request = body_of(req, res, decode_start);
  if (!request) return;
  const auto plan = backend_.plan(*request);
  plan.ok() ? reply(res, 200, encode(*plan)) : reply_error(res, plan.error());
}

void ApiServer::Impl::get_jobs(const Request&, Response& res) {
  const auto jobs = backend_.jobs();
  jobs.ok() ? reply(res, 200, encode_jobs(*jobs)) : reply_error(res, jobs.error());
}

void ApiServer::Impl::post_job(const Request& req, Response& res) {
  const auto request = body_of(req, res, decode_start);
  if (!request) return;
  const auto id = backend_.start_job(*request);
  if (!id.ok()) return reply_error(res, id.error());
  spdlog::info("api: uid {} started job {}: {} to {}", current_caller->credentials.uid, *id,
               request->vm, request->destination);
  res.set_header("Location", "/v1/jobs/" + *id);
  reply(res, 201, Json{{"id", *id}});
}

void ApiServer::Impl::get_job(const Request& req, Response& res) {
  const auto job = backend_.job(req.matches[1]);
  job.ok() ? reply(res, 200, encode(*job)) : reply_error(res, job.error());
}

void ApiServer::Impl::post_abort(const Request& req, Response& res) {
  const std::string id = req.matches[1];
  const auto body = body_of(req, res, decode_abort);
  if (!body) return;
  acknowledge(res, id, "aborts", backend_.abort_job(id, body->discard));
}

void ApiServer::Impl::post_pause(const Request& req, Response& res) {
  const std::string id = req.matches[1];
  acknowledge(res, id, "pauses", backend_.pause_job(id));
}

void ApiServer::Impl::post_resume(const Request& req, Response& res) {
  const std::string id = req.matches[1];
  acknowledge(res, id, "resumes", backend_.resume_job(id));
}

void ApiServer::Impl::acknowledge(Response& res, const std::string& id, const char* verb, const Status& done) {
  if (!done.ok()) return reply_error(res, done.error());
  spdlog::info("api: uid {} {} job {}", current_caller->credentials.uid, verb, id);
  reply(res, 202, Json{{"id", id}});
}

void ApiServer::Impl::get_volumes(const Request&, Response& res) {
  const auto volumes = backend_.volumes();
  volumes.ok() ? reply(res, 200, encode_volumes(*volumes)) : reply_error(res, volumes.error());
}

void ApiServer::Impl::post_attach(const Request& req, Response& res) {
  const auto body = body_of(req, res, decode_attach);
  if (!body) return;
  const auto volume = backend_.attach_volume(body->path);
  if (!volume.ok()) return reply_error(res, volume.error());
  spdlog::info("api: uid {} attached {}", current_caller->credentials.uid, body->path);
  reply(res, 200, encode(*volume));
}

void ApiServer::Impl::post_detach(const Request& req, Response& res) {
  const auto body = body_of(req, res, decode_detach);
  if (!body) return;
  if (auto done = backend_.detach_volume(body->path); !done.ok())
    return reply_error(res, done.error());
  spdlog::info("api: uid {} detached {}", current_caller->credentials.uid, body->path);
  reply(res, 200, Json{{"path", body->path}});
}

void ApiServer::Impl::get_definition(const Request& req, Response& res) {
  const auto target = query_of(req, res, decode_definition_query);
  if (!target) return;
  const auto definition = backend_.definition(*target);
  definition.ok() ? reply(res, 200, encode(*definition)) : reply_error(res, definition.error());
}

void ApiServer::Impl::get_owners(const Request& req, Response& res) {
  const auto target = query_of(req, res, decode_owner_query);
  if (!target) return;
  const auto owners = backend_.owners(*target);
  owners.ok() ? reply(res, 200, encode(*owners)) : reply_error(res, owners.error());
}

void ApiServer::Impl::post_force(const Request& req, Response& res) {
  const auto body = body_of(req, res, decode_force);
  if (!body) return;
  const auto forced = backend_.force_owner(*body);
  if (!forced.ok()) return reply_error(res, forced.error());
  spdlog::warn("api: uid {} took the disks of {} by force", current_caller->credentials.uid, forced->vm);
  reply(res, forced->job ? 202 : 200, encode(*forced));
}

void ApiServer::Impl::post_release(const Request& req, Response& res) {
  const auto body = body_of(req, res, decode_release);
  if (!body) return;
  const auto released = backend_.release_owner(*body);
  if (!released.ok()) return reply_error(res, released.error());
  for (const auto& path : released->paths)
    spdlog::info("api: uid {} released {}", current_caller->credentials.uid, path);
  reply(res, 200, encode(*released));
}

void ApiServer::Impl::post_doctor(const Request& req, Response& res) {
  const auto body = body_of(req, res, decode_doctor);
  if (!body) return;
  const auto report = backend_.doctor(body->peer);
  report.ok() ? reply(res, 200, encode(*report)) : reply_error(res, report.error());
}

// ---- events ------------------------------------------------------------------------------------

// The feed's states are newer than the backend's list; the list knows jobs from before the feed.
Status ApiServer::Impl::fill_snapshot(Watch& watch, const std::optional<std::string>& job) {
  std::vector<JobEventPtr> events = watch.subscription->snapshot();
  if (job && events.empty()) {
    auto found = backend_.job(*job);
    if (!found.ok()) return std::move(found).error();
    events.push_back(make_job_event(*found));
  } else if (!job) {
    auto all = backend_.jobs();
    if (!all.ok()) return std::move(all).error();
    std::set<std::string> known;
    for (const auto& event : events) known.insert(event->job);
    for (const auto& other : *all)
      if (!known.contains(other.id)) watch.first += make_job_event(other)->line;
  }
  for (const auto& event : events) {
    watch.first += event->line;
    watch.ended = job && event->final;
  }
  watch.first += write_json(Json{{"event", "ready"}, {"time", format_time(now())}}) + "\n";
  return ok_status();
}

void ApiServer::Impl::get_events(const Request& req, Response& res) {
  std::optional<std::string> job;
  if (req.has_param("job")) job = req.get_param_value("job");
  auto watch = std::make_shared<Watch>();
  watch->one_job = job.has_value();
  watch->subscription = feed_.subscribe(job);
  if (auto filled = fill_snapshot(*watch, job); !filled.ok())
    return reply_error(res, filled.error());
  res.status = 200;
  res.set_chunked_content_provider("application/x-ndjson",
                                   [this, watch](size_t, httplib::DataSink& sink) {
                                     return feed_watch(*watch, sink);
                                   });
}

// One step of a stream; httplib calls it until the sink is done or it returns false.
bool ApiServer::Impl::feed_watch(Watch& watch, httplib::DataSink& sink) {
  std::string lines = std::exchange(watch.first, {});
  bool end = watch.ended;
  if (lines.empty()) {
    const auto slice = std::min(kWatchSlice, options_.heartbeat);
    if (const auto event = watch.subscription->next(stop_.get_token(), slice)) {
      lines = event->line;
      end = watch.one_job && event->final;
    } else if (stop_.stop_requested()) {
      end = true;
    } else if (!sink.is_writable()) {
      return false;
    } else if (std::chrono::steady_clock::now() - watch.last_line >= options_.heartbeat) {
      lines = write_json(Json{{"event", "heartbeat"}, {"time", format_time(now())}}) + "\n";
    }
  }
  if (!lines.empty()) {
    if (!sink.write(lines.data(), lines.size())) return false;
    watch.last_line = std::chrono::steady_clock::now();
  }
  if (end) sink.done();
  return true;
}

// ---- front -------------------------------------------------------------------------------------

Result<std::unique_ptr<ApiServer>> ApiServer::start(const ApiServerOptions& options,
                                                    ApiBackend& backend, EventFeed& feed) {
  const auto group = group_by_name(options.admin_group);
  Fd stop_fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_fd.valid()) return sys_error("cannot create an eventfd for the admin API", errno);
  auto listener = UnixListener::bind(options.socket_path, group);
  if (!listener.ok()) return std::move(listener).error();
  auto impl = std::make_unique<Impl>(options, backend, feed, std::move(listener).value(), group,
                                     std::move(stop_fd));
  return std::unique_ptr<ApiServer>(new ApiServer(std::move(impl)));
}

ApiServer::ApiServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ApiServer::~ApiServer() = default;
void ApiServer::stop() { impl_->stop(); }

}  // namespace ferry::api
