// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/api_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "api/fake_backend.h"
#include "api/unix_socket.h"

namespace ferry::api {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::HasSubstr;

class ApiServerTest : public testing::Test {
 protected:
  ApiServerTest() {
    char name[] = "/tmp/ferry-api-XXXXXX";
    dir_ = ::mkdtemp(name);
    options_.socket_path = dir_ + "/ctl.sock";
    options_.heartbeat = 100ms;
  }
  ~ApiServerTest() override {
    server_.reset();
    std::filesystem::remove_all(dir_);
  }

  void start() {
    auto server = ApiServer::start(options_, backend_, backend_.feed);
    ASSERT_TRUE(server.ok()) << server.error().message();
    server_ = std::move(*server);
  }

  httplib::Client client() const {
    httplib::Client client(options_.socket_path, 80);
    client.set_address_family(AF_UNIX);
    client.set_read_timeout(10s);
    return client;
  }
  Fd raw_connection() const {
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    options_.socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  // Sends bytes as they are and returns everything that comes back until the end.
  std::string talk(const std::string& bytes) const {
    const Fd fd = raw_connection();
    (void)!::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    std::string answer;
    char part[4096];
    for (ssize_t n; (n = ::recv(fd.get(), part, sizeof part, 0)) > 0;) answer.append(part, n);
    return answer;
  }
  static Json error_of(const httplib::Result& result) {
    return parse_json(result->body, Errc::protocol)->at("error");
  }

  std::string dir_;
  ApiServerOptions options_;
  FakeBackend backend_;
  std::unique_ptr<ApiServer> server_;
};

TEST_F(ApiServerTest, VersionJobsVolumes) {
  backend_.volume_list.resize(1);
  backend_.volume_list[0].state = "fenced";
  start();
  auto http = client();
  const auto version = http.Get("/v1/version");
  ASSERT_TRUE(version);
  EXPECT_EQ(version->status, 200);
  EXPECT_EQ(parse_json(version->body, Errc::protocol)->at("api"), 1);
  EXPECT_EQ(http.Get("/v1/jobs")->body, "{\"jobs\":[]}\n");
  EXPECT_THAT(http.Get("/v1/volumes")->body, HasSubstr("\"state\":\"fenced\""));
}

TEST_F(ApiServerTest, StartShowAbort) {
  start();
  auto http = client();
  const auto made = http.Post("/v1/jobs", R"({"vm":"web1","destination":"hostb"})",
                              "application/json");
  ASSERT_TRUE(made);
  EXPECT_EQ(made->status, 201);
  EXPECT_EQ(made->body, "{\"id\":\"7f3a\"}\n");
  EXPECT_EQ(made->get_header_value("Location"), "/v1/jobs/7f3a");
  EXPECT_THAT(http.Get("/v1/jobs/7f3a")->body, HasSubstr("\"vm\":\"web1\""));
  EXPECT_EQ(http.Post("/v1/jobs/7f3a/abort")->status, 202);
  EXPECT_THAT(backend_.calls(), Contains("abort 7f3a"));
  EXPECT_EQ(http.Post("/v1/jobs/7f3a/abort", R"({"discard":true})", "application/json")->status, 202);
  EXPECT_THAT(backend_.calls(), Contains("abort 7f3a discard"));
  EXPECT_EQ(http.Post("/v1/jobs/7f3a/abort", R"({"keep":true})", "application/json")->status, 400);
  EXPECT_EQ(http.Post("/v1/jobs/7f3a/pause")->status, 202);
  EXPECT_EQ(http.Post("/v1/jobs/7f3a/resume")->status, 202);
  EXPECT_THAT(backend_.calls(), testing::AllOf(Contains("pause 7f3a"), Contains("resume 7f3a")));
  EXPECT_EQ(http.Get("/v1/jobs/none")->status, 404);
  EXPECT_EQ(http.Post("/v1/jobs/none/abort")->status, 404);
}

TEST_F(ApiServerTest, AttachDetachDoctorPlan) {
  start();
  auto http = client();
  const auto post = [&](const char* path, const char* body) {
    return http.Post(path, body, "application/json");
  };
  EXPECT_EQ(post("/v1/volumes/attach", R"({"path":"/dev/vg0/a"})")->status, 200);
  EXPECT_EQ(post("/v1/volumes/detach", R"({"path":"/dev/vg0/a"})")->body, "{\"path\":\"/dev/vg0/a\"}\n");
  EXPECT_EQ(post("/v1/doctor", R"({"peer":"hostb"})")->status, 200);
  EXPECT_EQ(post("/v1/doctor", "")->status, 200);
  EXPECT_EQ(post("/v1/plan", R"({"vm":"web1","destination":"hostb"})")->status, 200);
  EXPECT_THAT(backend_.calls(), testing::IsSupersetOf({"attach /dev/vg0/a", "detach /dev/vg0/a",
                                                       "doctor hostb", "doctor -"}));
}

TEST_F(ApiServerTest, OwnersOfAllOfAVmOfAPath) {
  start();
  auto http = client();
  EXPECT_EQ(http.Get("/v1/owners")->body, "{\"host\":\"hosta\",\"disks\":[]}\n");
  EXPECT_EQ(http.Get("/v1/owners?vm=web1")->status, 404);
  backend_.owned_disks = sample_owners();
  EXPECT_THAT(http.Get("/v1/owners")->body, HasSubstr("\"holding\":\"given\""));
  EXPECT_EQ(http.Get("/v1/owners?vm=web1")->status, 200);
  EXPECT_EQ(http.Get("/v1/owners?path=%2Fdev%2Fvg0%2Fweb1")->status, 200);
  EXPECT_THAT(backend_.calls(), testing::IsSupersetOf({"owners ", "owners web1", "owners /dev/vg0/web1"}));
  EXPECT_THAT(http.Get("/v1/owners/definition?vm=web1")->body, HasSubstr("\"xml\":\"<domain>"));
  EXPECT_EQ(http.Get("/v1/owners/definition")->status, 400);
  EXPECT_EQ(http.Get("/v1/owners/definition?vm=web1&vm=web2")->status, 400);
}

TEST_F(ApiServerTest, ForceAndRelease) {
  start();
  auto http = client();
  const auto post = [&](const char* path, const char* body) {
    return http.Post(path, body, "application/json");
  };
  const auto done = post("/v1/owners/force", R"({"vm":"web1","peer_is_dead":true})");
  EXPECT_EQ(done->status, 200);
  EXPECT_THAT(done->body, HasSubstr("\"generation\":3"));
  backend_.forced.job = "7f3a";
  EXPECT_EQ(post("/v1/owners/force", R"({"path":"/dev/vg0/web1","peer_is_dead":true})")->status, 202);
  backend_.risk = make_error(Errc::usage, "two hosts write");
  EXPECT_EQ(post("/v1/owners/force", R"({"vm":"web1"})")->status, 400);
  EXPECT_EQ(post("/v1/owners/release", R"({"vm":"web1"})")->body,
            "{\"vm\":\"web1\",\"paths\":[\"/dev/vg0/web1\",\"/dev/vg0/web1-swap\"]}\n");
  EXPECT_EQ(post("/v1/owners/release", R"({"path":"/dev/vg0/web1","unverified":true})")->status, 200);
  EXPECT_THAT(backend_.calls(),
              testing::ElementsAre(R"(force {"vm":"web1","peer_is_dead":true})",
                                   R"(force {"path":"/dev/vg0/web1","peer_is_dead":true})",
                                   R"(force {"vm":"web1","peer_is_dead":false})",
                                   R"(release {"vm":"web1","unverified":false})",
                                   R"(release {"path":"/dev/vg0/web1","unverified":true})"));
}

TEST_F(ApiServerTest, MalformedOwnerRequestsReachNobody) {
  start();
  auto http = client();
  for (const char* query : {"?vm=a&path=/dev/x", "?vm=a&vm=b", "?path=dev/x", "?path=..%2Fx", "?vm=a%0Ab",
                            "?vm=%1b%5b2J", "?colour=red", "?path=/dev/x%7f"}) {
    const auto result = http.Get(std::string("/v1/owners") + query);
    ASSERT_TRUE(result) << query;
    EXPECT_EQ(result->status, 400) << query;
    EXPECT_EQ(error_of(result).at("code"), "usage") << query;
  }
  for (const char* path : {"/v1/owners/force", "/v1/owners/release"}) {
    for (const char* body : {"", "{", "[]", "{}", R"({"vm":"a","path":"/dev/x"})", R"({"vm":"a","x":1})",
                             R"({"vm":"a","peer_is_dead":1,"unverified":1})"})
      EXPECT_EQ(http.Post(path, body, "application/json")->status, 400) << path << body;
    EXPECT_EQ(http.Get(path)->status, 405) << path;
  }
  EXPECT_EQ(http.Post("/v1/owners", "{}", "application/json")->status, 405);
  EXPECT_THAT(backend_.calls(), testing::IsEmpty());
}

TEST_F(ApiServerTest, EveryKindOfErrorHasItsStatus) {
  start();
  auto http = client();
  for (const Errc code : {Errc::failed, Errc::not_found, Errc::permission, Errc::busy,
                          Errc::no_space, Errc::peer_unreachable, Errc::timeout, Errc::io}) {
    backend_.failure = make_error(code, "no", 0, "try again");
    const auto result = http.Get("/v1/volumes");
    EXPECT_EQ(result->status, http_status(code));
    EXPECT_EQ(error_of(result).at("code"), errc_name(code));
    EXPECT_EQ(error_of(result).at("exit_code"), exit_code(code));
    EXPECT_EQ(error_of(result).at("hint"), "try again");
  }
}

TEST_F(ApiServerTest, MalformedRequestsGetAnErrorDocument) {
  start();
  auto http = client();
  const auto post = [&](const std::string& path, const std::string& body) {
    return http.Post(path, body, "application/json");
  };
  for (const char* body : {"", "{", "[]", R"({"vm":"a","destination":"b","x":1})"}) {
    const auto result = post("/v1/jobs", body);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->status, 400) << body;
    EXPECT_EQ(error_of(result).at("code"), "usage");
  }
  EXPECT_EQ(http.Get("/v1/nothing")->status, 404);
  EXPECT_EQ(error_of(http.Get("/v1/nothing")).at("code"), "not_found");
  EXPECT_EQ(http.Get("/v1/plan")->status, 405);
  EXPECT_EQ(http.Get("/v1/jobs?colour=red")->status, 400);
  EXPECT_EQ(http.Get("/v1/events?job=none")->status, 404);
  httplib::Headers packed{{"Content-Encoding", "gzip"}};
  EXPECT_EQ(http.Post("/v1/jobs", packed, "x", "application/json")->status, 415);
  EXPECT_TRUE(backend_.calls().empty() || backend_.calls().back() == "job none");
}

TEST_F(ApiServerTest, OversizeRequestsAreRefused) {
  options_.request_timeout = 300ms;  // how long the server waits for the announced million bytes
  start();
  EXPECT_THAT(talk("POST /v1/jobs HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"),
              HasSubstr(" 413 "));
  // A head without end is cut off instead of being collected.
  std::string head = "GET /v1/version HTTP/1.1\r\n";
  while (head.size() < 1'000'000) head += "X-Filler: " + std::string(100, 'x') + "\r\n";
  EXPECT_THAT(talk(head), testing::Not(HasSubstr(" 200 ")));
  EXPECT_THAT(talk("nonsense\r\n\r\n"), HasSubstr(" 400 "));
  EXPECT_TRUE(backend_.calls().empty());
}

TEST_F(ApiServerTest, RequestThatNeverEndsIsCutOff) {
  options_.request_timeout = 200ms;
  options_.keep_alive_timeout = 1min;
  start();
  const auto begin = std::chrono::steady_clock::now();
  talk("GET /v1/version HTTP/1.1\r\nHost: x\r\n");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
  EXPECT_TRUE(client().Get("/v1/version"));
}

TEST_F(ApiServerTest, EventsSnapshotChangesEnd) {
  backend_.publish(sample_job());
  start();
  std::vector<std::string> kinds;
  std::string text;
  auto http = client();
  const auto result = http.Get("/v1/events?job=7f3a", [&](const char* data, size_t size) {
    text.append(data, size);
    for (size_t end; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
      const auto line = parse_json(text.substr(0, end), Errc::protocol);
      EXPECT_TRUE(line.ok());
      const std::string kind = line->at("event");
      if (kind == "heartbeat") continue;
      kinds.push_back(kind == "job" ? line->at("job").at("state").get<std::string>() : kind);
      if (kind == "ready") backend_.publish(finished_job());
    }
    return true;
  });
  ASSERT_TRUE(result);
  EXPECT_EQ(result->get_header_value("Content-Type"), "application/x-ndjson");
  EXPECT_THAT(kinds, testing::ElementsAre("precopy", "ready", "done"));
}

TEST_F(ApiServerTest, EventsOfAnEndedJobEndAtOnce) {
  backend_.publish(finished_job());
  start();
  const auto result = client().Get("/v1/events?job=7f3a");
  ASSERT_TRUE(result);
  EXPECT_THAT(result->body, HasSubstr("\"state\":\"done\""));
}

TEST_F(ApiServerTest, StopEndsStreamsAndIdleConnectionsPromptly) {
  options_.keep_alive_timeout = 1min;
  start();
  bool ready = false;
  std::mutex mutex;
  std::condition_variable changed;
  std::jthread watcher([&] {
    client().Get("/v1/events", [&](const char* data, size_t size) {
      if (std::string_view(data, size).find("ready") != std::string_view::npos) {
        std::lock_guard lock(mutex);
        ready = true;
        changed.notify_all();
      }
      return true;
    });
  });
  const Fd idle = raw_connection();
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, 10s, [&] { return ready; }));
  }
  const auto begin = std::chrono::steady_clock::now();
  server_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
  EXPECT_FALSE(std::filesystem::exists(options_.socket_path));
}

TEST_F(ApiServerTest, WatcherThatDoesNotReadBlocksNobody) {
  options_.write_timeout = 10min;  // so that waiting for the watcher would show
  start();
  const Fd stuck = raw_connection();
  const std::string request = "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n";
  ASSERT_GT(::send(stuck.get(), request.data(), request.size(), 0), 0);
  char byte = 0;
  ASSERT_EQ(::recv(stuck.get(), &byte, 1, 0), 1);  // the stream has begun
  auto published = std::async(std::launch::async, [&] {
    for (int n = 0; n < 2000; ++n) backend_.publish(sample_job());  // far beyond a socket's buffer
  });
  EXPECT_EQ(published.wait_for(60s), std::future_status::ready);
  EXPECT_EQ(client().Get("/v1/version")->status, 200);
}

TEST_F(ApiServerTest, TooManyConnections) {
  options_.connections_max = 2;
  start();
  const Fd first = raw_connection();
  const Fd second = raw_connection();
  EXPECT_THAT(talk(""), HasSubstr(" 503 "));
}

TEST_F(ApiServerTest, SocketIsMadeSafely) {
  start();
  struct stat info{};
  ASSERT_EQ(::stat(options_.socket_path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660u);
  // A second daemon is refused and does not take the first one's socket away.
  EXPECT_EQ(ApiServer::start(options_, backend_, backend_.feed).error().code, Errc::busy);
  EXPECT_EQ(client().Get("/v1/version")->status, 200);
}

TEST_F(ApiServerTest, StaleSocketIsReplacedOtherFilesAreNot) {
  {
    Fd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    options_.socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  start();
  EXPECT_EQ(client().Get("/v1/version")->status, 200);
  server_.reset();
  std::ofstream(options_.socket_path) << "precious";
  const auto refused = ApiServer::start(options_, backend_, backend_.feed);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(std::filesystem::file_size(options_.socket_path), 8u);
}

TEST_F(ApiServerTest, OtherUsersAreRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  start();
  std::filesystem::permissions(dir_, std::filesystem::perms(0755));
  std::filesystem::permissions(options_.socket_path, std::filesystem::perms(0666));
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(99);
    const auto answer = talk("GET /v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    ::_exit(answer.find(" 403 ") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(backend_.calls().empty());
}

TEST(PeerMayAdminister, RootOwnUserAndGroup) {
  const uid_t stranger = ::geteuid() + 4242;
  EXPECT_TRUE(peer_may_administer({0, 0, 1, {}}, std::nullopt));
  EXPECT_TRUE(peer_may_administer({::geteuid(), 5, 1, {}}, std::nullopt));
  EXPECT_FALSE(peer_may_administer({stranger, 5, 1, {7}}, std::nullopt));
  EXPECT_FALSE(peer_may_administer({stranger, 5, 1, {7}}, 8));
  EXPECT_TRUE(peer_may_administer({stranger, 8, 1, {}}, 8));
  EXPECT_TRUE(peer_may_administer({stranger, 5, 1, {7, 8}}, 8));
}

}  // namespace
}  // namespace ferry::api
