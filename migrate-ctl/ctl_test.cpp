// SPDX-License-Identifier: GPL-2.0-or-later
// migrate-ctl as a process against the real API server with a fake daemon behind it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "api/api_server.h"
#include "api/fake_backend.h"
#include "child.h"

namespace ferry::ctl {
namespace {

using api::Json;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class CtlTest : public testing::Test {
 protected:
  CtlTest() {
    char name[] = "/tmp/ferry-ctl-XXXXXX";
    dir_ = ::mkdtemp(name);
    socket_ = dir_ + "/ctl.sock";
    start_server();
  }
  ~CtlTest() override {
    server_.reset();
    std::filesystem::remove_all(dir_);
  }
  void start_server() {
    api::ApiServerOptions options;
    options.socket_path = socket_;
    options.heartbeat = std::chrono::milliseconds(200);
    auto server = api::ApiServer::start(options, backend_, backend_.feed);
    ASSERT_TRUE(server.ok()) << server.error().message();
    server_ = std::move(*server);
  }
  Child ctl(std::vector<std::string> args, Stderr kind = Stderr::pipe) const {
    args.insert(args.begin(), {"--socket", socket_});
    return Child(std::move(args), kind);
  }
  // Runs to the end and expects this exit code.
  std::string run(int code, std::vector<std::string> args) {
    Child child = ctl(std::move(args));
    EXPECT_EQ(child.wait(), code) << child.err();
    err_ = child.err();
    return child.out();
  }
  static Json json(const std::string& text) {
    auto value = api::parse_json(text, Errc::protocol);
    EXPECT_TRUE(value.ok()) << text;
    return value.ok() ? *value : Json();
  }
  // Starts a migration and waits until the job runs and is shown.
  Child migration(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"migrate", "web1", "hostb"});
    Child child = ctl(std::move(more));
    EXPECT_TRUE(child.wait_for_err("preparing"));
    backend_.publish(api::sample_job());
    return child;
  }

  std::string dir_;
  std::string socket_;
  std::string err_;
  api::FakeBackend backend_;
  std::unique_ptr<api::ApiServer> server_;
};

// ---- migrate -----------------------------------------------------------------------------------

TEST_F(CtlTest, MigrateShowsPhasesAndSummary) {
  Child child = migration();
  EXPECT_TRUE(child.wait_for_err("pre-copy round 2"));
  backend_.publish(api::finished_job());
  EXPECT_EQ(child.wait(), 0);
  for (const char* part : {"web1 runs on hostb", "vda", "swap", "2.1 GiB", "digests equal",
                           "total 24.1 s", "downtime 84 ms"})
    EXPECT_THAT(child.out(), HasSubstr(part));
  EXPECT_THAT(child.err(), Not(HasSubstr("\033[")));
}

TEST_F(CtlTest, MigrateSendsAllOptions) {
  run(0, {"migrate", "web1", "hostb:7000", "--detach", "--create", "--role", "vdb=swap", "--role",
          "vdc=scratch", "--max-downtime", "0.25s", "--bandwidth", "100MB/s", "--streams", "3",
          "--timeout", "10m"});
  EXPECT_THAT(backend_.calls(),
              Contains(R"(start {"vm":"web1","destination":"hostb:7000","create":true,)"
                       R"("roles":{"vdb":"swap","vdc":"scratch"},"max_downtime_ms":250,)"
                       R"("bandwidth_bytes_per_s":100000000,"streams":3,"timeout_s":600})"));
}

TEST_F(CtlTest, MigrateJson) {
  Child child = migration({"--json"});
  backend_.publish(api::finished_job());
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(json(child.out())["state"], "done");
}

TEST_F(CtlTest, MigrateDetach) {
  EXPECT_THAT(run(0, {"migrate", "web1", "hostb", "--detach"}), HasSubstr("status 7f3a --watch"));
  EXPECT_EQ(json(run(0, {"migrate", "web1", "hostb", "--detach", "--json"}))["id"], "7f3a");
}

TEST_F(CtlTest, MigrateProgressJson) {
  Child child = ctl({"migrate", "web1", "hostb", "--progress-json"});
  EXPECT_TRUE(child.wait_for_err("\"state\":\"preparing\""));
  backend_.publish(api::sample_job());
  EXPECT_TRUE(child.wait_for_err("\"round\":2"));
  backend_.publish(api::finished_job());
  EXPECT_EQ(child.wait(), 0);
  std::istringstream lines(child.err());
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) EXPECT_TRUE(json(line).is_object());
  EXPECT_GE(count, 3);
}

TEST_F(CtlTest, MigrateDrawsABarOnATerminal) {
  Child child = ctl({"migrate", "web1", "hostb"}, Stderr::terminal);
  EXPECT_TRUE(child.wait_for_err("preparing"));
  backend_.publish(api::sample_job());
  EXPECT_TRUE(child.wait_for_err("#######"));
  EXPECT_TRUE(child.wait_for_err("61.2 %"));
  backend_.publish(api::finished_job());
  EXPECT_EQ(child.wait(), 0);
  EXPECT_THAT(child.err(), HasSubstr("\033[1m"));
  EXPECT_THAT(child.err(), testing::EndsWith("\r\033[K"));  // nothing of the bar is left
}

TEST_F(CtlTest, NoColorOnATerminal) {
  Child child = ctl({"migrate", "web1", "hostb", "--no-color"}, Stderr::terminal);
  EXPECT_TRUE(child.wait_for_err("preparing"));
  backend_.publish(api::finished_job());
  EXPECT_EQ(child.wait(), 0);
  EXPECT_THAT(child.err(), Not(HasSubstr("\033[1m")));
}

TEST_F(CtlTest, MigrateDryRun) {
  backend_.planned.vm = "web1";
  backend_.planned.destination = "hostb:7391";
  backend_.planned.disks = {{"vda", "/dev/vg0/web1", api::DiskRole::data, 1 << 30,
                             api::Method::in_place, "/dev/vg0/web1",
                             api::DestinationAction::create}};
  backend_.planned.checks = {{"libvirt", true, "9.0", "", std::nullopt}};
  const auto text = run(0, {"migrate", "web1", "hostb", "--dry-run"});
  EXPECT_THAT(text, HasSubstr("in-place"));
  EXPECT_THAT(text, HasSubstr("create /dev/vg0/web1"));
  EXPECT_THAT(text, HasSubstr("can start"));
  backend_.planned.checks.push_back({"space", false, "vg0 is full", "free 1 GiB", Errc::busy});
  EXPECT_THAT(run(4, {"migrate", "web1", "hostb", "-n"}), HasSubstr("free 1 GiB"));
  EXPECT_FALSE(json(run(4, {"migrate", "web1", "hostb", "-n", "--json"}))["ok"].get<bool>());
  for (const auto& call : backend_.calls()) EXPECT_THAT(call, Not(testing::StartsWith("start")));
}

class ExitCodeTest : public CtlTest, public testing::WithParamInterface<Errc> {};

TEST_P(ExitCodeTest, OfAJobThatFails) {
  const Errc code = GetParam();
  Child child = migration();
  const auto owner = code == Errc::owner_unknown ? api::Owner::unknown : api::Owner::source;
  backend_.publish(api::failed_job(code, owner));
  EXPECT_EQ(child.wait(), exit_code(code));
  EXPECT_THAT(child.err(), HasSubstr("the reason"));
  EXPECT_THAT(child.err(), HasSubstr("hint: do this about it"));
  EXPECT_THAT(child.err(), HasSubstr(owner == api::Owner::unknown ? "UNKNOWN" : "stays on"));
}

TEST_P(ExitCodeTest, OfARequestThatIsRefused) {
  backend_.failure = make_error(GetParam(), "cannot do that", 0, "try this");
  run(exit_code(GetParam()), {"migrate", "web1", "hostb"});
  EXPECT_THAT(err_, HasSubstr("cannot do that"));
  EXPECT_THAT(err_, HasSubstr("try this"));
}

INSTANTIATE_TEST_SUITE_P(All, ExitCodeTest,
                         testing::Values(Errc::failed, Errc::usage, Errc::not_found,
                                         Errc::permission, Errc::busy, Errc::peer_unreachable,
                                         Errc::aborted, Errc::not_converged,
                                         Errc::verify_mismatch, Errc::cleanup_incomplete,
                                         Errc::owner_unknown),
                         [](const auto& info) { return std::string(errc_name(info.param)); });

TEST_F(CtlTest, DoneWithSomethingLeftBehind) {
  Child child = migration();
  auto job = api::finished_job();
  job.error = make_error(Errc::cleanup_incomplete, "left behind: /dev/vg0/x");
  backend_.publish(job);
  EXPECT_EQ(child.wait(), 7);
  EXPECT_THAT(child.err(), HasSubstr("web1 runs on hostb"));
  EXPECT_THAT(child.err(), HasSubstr("/dev/vg0/x"));
}

// ---- signals -----------------------------------------------------------------------------------

TEST_F(CtlTest, InterruptAbortsAndReports) {
  Child child = migration();
  child.signal(SIGINT);
  EXPECT_TRUE(backend_.wait_for("abort 7f3a"));
  EXPECT_TRUE(child.wait_for_err("press Ctrl-C again"));
  backend_.publish(api::failed_job(Errc::aborted));
  EXPECT_EQ(child.wait(), 1);
  EXPECT_THAT(child.err(), HasSubstr("web1 stays on"));
}

TEST_F(CtlTest, SecondInterruptDetaches) {
  Child child = migration();
  child.signal(SIGINT);
  EXPECT_TRUE(backend_.wait_for("abort 7f3a"));
  EXPECT_TRUE(child.wait_for_err("press Ctrl-C again"));
  child.signal(SIGINT);
  EXPECT_EQ(child.wait(), 130);
  EXPECT_THAT(child.err(), HasSubstr("migrate-ctl status 7f3a --watch"));
}

TEST_F(CtlTest, TerminationDetachesWithoutAbort) {
  Child child = migration();
  child.signal(SIGTERM);
  EXPECT_EQ(child.wait(), 143);
  EXPECT_THAT(backend_.calls(), Not(Contains("abort 7f3a")));
}

TEST_F(CtlTest, UserSignalPrintsALine) {
  Child child = migration();
  EXPECT_TRUE(child.wait_for_err("pre-copy round 2"));
  auto job = api::sample_job();
  job.progress = 0.9;  // the same phase: no line comes by itself
  backend_.publish(job);
  bool seen = false;
  // The state may still be on its way when the first signal arrives.
  for (int n = 0; n < 100 && !seen; ++n) {
    child.signal(SIGUSR1);
    seen = child.wait_for_err("90.0 %", std::chrono::milliseconds(100));
  }
  EXPECT_TRUE(seen);
  backend_.publish(api::finished_job());
  EXPECT_EQ(child.wait(), 0);
}

TEST_F(CtlTest, QuietPrintsNothing) {
  backend_.publish(api::finished_job());
  EXPECT_EQ(run(0, {"status", "7f3a", "--watch", "--quiet"}), "");
  EXPECT_EQ(err_, "");
}

TEST_F(CtlTest, DaemonRestartIsSurvived) {
  Child child = migration();
  EXPECT_TRUE(child.wait_for_err("pre-copy round 2"));
  server_.reset();
  EXPECT_TRUE(child.wait_for_err("trying again"));
  start_server();
  backend_.publish(api::finished_job());
  EXPECT_EQ(child.wait(), 0);
}

TEST_F(CtlTest, DaemonThatForgotTheJobMeansUnknown) {
  Child child = migration();
  EXPECT_TRUE(child.wait_for_err("pre-copy round 2"));
  server_.reset();
  EXPECT_TRUE(child.wait_for_err("trying again"));
  api::FakeBackend other;
  api::ApiServerOptions options;
  options.socket_path = socket_;
  auto server = api::ApiServer::start(options, other, other.feed);
  ASSERT_TRUE(server.ok());
  EXPECT_EQ(child.wait(), 8);
  EXPECT_THAT(child.err(), HasSubstr("not known"));
}

// ---- other verbs -------------------------------------------------------------------------------

TEST_F(CtlTest, StatusOfNothingOneAndByVm) {
  EXPECT_THAT(run(0, {"status"}), HasSubstr("no migration is running"));
  backend_.publish(api::sample_job());
  EXPECT_THAT(run(0, {"status"}), HasSubstr("copying round 2"));
  EXPECT_THAT(run(0, {"status", "web1"}), HasSubstr("job 7f3a"));
  EXPECT_EQ(json(run(0, {"status", "7f3a", "--json"}))["id"], "7f3a");
  EXPECT_EQ(json(run(0, {"status", "--json"}))["jobs"].size(), 1u);
  run(3, {"status", "nobody"});
  EXPECT_THAT(err_, HasSubstr("nobody"));
}

TEST_F(CtlTest, StatusWatch) {
  run(3, {"status", "--watch"});
  backend_.publish(api::sample_job());
  Child child = ctl({"status", "--watch"});
  EXPECT_TRUE(child.wait_for_err("pre-copy round 2"));
  backend_.publish(api::failed_job(Errc::not_converged));
  EXPECT_EQ(child.wait(), 5);
  EXPECT_EQ(json(run(5, {"status", "7f3a", "--watch", "--json"}))["state"], "failed");
}

TEST_F(CtlTest, StatusWatchInterruptOnlyStopsWatching) {
  backend_.publish(api::sample_job());
  Child child = ctl({"status", "7f3a", "--watch"});
  EXPECT_TRUE(child.wait_for_err("pre-copy round 2"));
  child.signal(SIGINT);
  EXPECT_EQ(child.wait(), 130);
  EXPECT_THAT(backend_.calls(), Not(Contains("abort 7f3a")));
}

TEST_F(CtlTest, Jobs) {
  backend_.publish(api::finished_job("first"));
  backend_.publish(api::sample_job("second"));
  EXPECT_THAT(run(0, {"jobs"}), testing::AllOf(HasSubstr("first"), HasSubstr("second")));
  EXPECT_EQ(run(0, {"jobs", "--quiet"}), "first\nsecond\n");
  EXPECT_EQ(json(run(0, {"jobs", "--json"}))["jobs"].size(), 2u);
}

TEST_F(CtlTest, Abort) {
  run(3, {"abort", "web1"});
  backend_.publish(api::sample_job());
  Child child = ctl({"abort", "web1"});
  EXPECT_TRUE(backend_.wait_for("abort 7f3a"));
  backend_.publish(api::failed_job(Errc::aborted));
  EXPECT_EQ(child.wait(), 0);
  EXPECT_THAT(child.out(), HasSubstr("stays where it is"));
  run(4, {"abort", "7f3a"});  // it has ended
}

TEST_F(CtlTest, AbortThatComesTooLateAndNoWait) {
  backend_.publish(api::sample_job());
  EXPECT_EQ(run(0, {"abort", "7f3a", "--no-wait"}), "");
  Child child = ctl({"abort", "7f3a", "--json"});
  EXPECT_TRUE(child.wait_for_err("pre-copy"));
  backend_.publish(api::finished_job());
  EXPECT_EQ(child.wait(), 4);
  EXPECT_EQ(json(child.out())["state"], "done");
}

TEST_F(CtlTest, VolumesAttachDetach) {
  api::VolumeStatus volume;
  volume.path = "/dev/vg0/web1";
  volume.state = "fenced";
  volume.block_size_bytes = 4096;
  volume.dirty_blocks = 256;
  backend_.volume_list = {volume};
  EXPECT_THAT(run(0, {"volumes"}), testing::AllOf(HasSubstr("fenced"), HasSubstr("1.0 MiB")));
  EXPECT_EQ(run(0, {"volumes", "-q"}), "/dev/vg0/web1\n");
  EXPECT_EQ(json(run(0, {"volumes", "--json"}))["volumes"].size(), 1u);
  EXPECT_THAT(run(0, {"attach", "/dev/vg0/a"}), HasSubstr("tracking"));
  EXPECT_EQ(json(run(0, {"attach", "/dev/vg0/a", "--json"}))["state"], "tracking");
  EXPECT_THAT(run(0, {"detach", "/dev/vg0/a"}), HasSubstr("taken out"));
  EXPECT_EQ(json(run(0, {"detach", "/dev/vg0/a", "--json"}))["path"], "/dev/vg0/a");
  run(2, {"detach", "/dev/vg0/a", "--release"});  // that is what release is for
  run(2, {"attach", "relative"});
  EXPECT_THAT(backend_.calls(), Contains("detach /dev/vg0/a"));
}

TEST_F(CtlTest, Doctor) {
  backend_.report.checks = {{"module", true, "0.1.0", "", std::nullopt}};
  EXPECT_THAT(run(0, {"doctor"}), testing::AllOf(HasSubstr("ferryd"), HasSubstr("module")));
  backend_.report.checks.push_back({"keys", false, "none", "copy them", std::nullopt});
  EXPECT_THAT(run(1, {"doctor", "--peer", "hostb"}), HasSubstr("copy them"));
  EXPECT_FALSE(json(run(1, {"doctor", "--json"}))["ok"].get<bool>());
  EXPECT_THAT(backend_.calls(), Contains("doctor hostb"));
}

TEST_F(CtlTest, VersionHelpCompletion) {
  EXPECT_THAT(run(0, {"version"}), HasSubstr("ferryd 0.1.0 on hosta"));
  EXPECT_EQ(json(run(0, {"version", "--json"}))["daemon"]["api"], 1);
  EXPECT_THAT(run(0, {"help"}), HasSubstr("migrate <vm> <host>"));
  EXPECT_THAT(run(0, {"help", "migrate"}), HasSubstr("--max-downtime"));
  EXPECT_THAT(run(0, {"migrate", "--help"}), HasSubstr("--max-downtime"));
  run(2, {"help", "nothing"});
  EXPECT_THAT(run(0, {"completion", "bash"}), HasSubstr("complete -F"));
  run(2, {"completion", "fish"});
  Child child({"--version"});
  EXPECT_EQ(child.wait(), 0);
  EXPECT_THAT(child.out(), HasSubstr("migrate-ctl 0."));
}

TEST_F(CtlTest, UsageErrors) {
  run(2, {"migrat", "web1", "hostb"});
  EXPECT_THAT(err_, HasSubstr("did you mean migrate?"));
  run(2, {"migrate", "web1"});
  EXPECT_THAT(err_, HasSubstr("needs <vm> <host>"));
  run(2, {"migrate", "web1", "hostb", "more"});
  for (const std::vector<std::string>& extra :
       {std::vector<std::string>{"--colour"}, {"--max-downtime", "soon"}, {"--role", "vdb"},
        {"--role", "vdb=root"}, {"--streams", "0"}, {"--streams", "x"}, {"--bandwidth", "1"},
        {"--role", "vdb=swap", "--role", "vdb=data"}, {"--max-downtime"}, {"--cre"}}) {
    std::vector<std::string> args{"migrate", "web1", "hostb"};
    args.insert(args.end(), extra.begin(), extra.end());
    run(2, args);
    EXPECT_FALSE(err_.empty());
  }
  run(2, {"migrate", "web1", "host b"});
  run(2, {});
  for (const auto& call : backend_.calls()) EXPECT_THAT(call, Not(testing::StartsWith("start")));
}

// ---- daemon not there, not allowed --------------------------------------------------------------

TEST_F(CtlTest, DaemonNotRunning) {
  server_.reset();
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"migrate", "web1", "hostb"}, {"status"}, {"jobs"},
        {"abort", "x"}, {"volumes"}, {"attach", "/dev/x"}, {"detach", "/dev/x"},
        {"release", "web1"}, {"own"}, {"own", "--force", "web1", "--peer-is-dead"}, {"version"}}) {
    run(1, args);
    EXPECT_THAT(err_, HasSubstr("ferryd is not running")) << args[0];
    EXPECT_THAT(err_, HasSubstr("systemctl start ferryd")) << args[0];
  }
  EXPECT_THAT(run(1, {"doctor"}), HasSubstr("systemctl start ferryd"));
  EXPECT_TRUE(json(run(1, {"version", "--json"}))["daemon"].is_null());
}

TEST_F(CtlTest, NoRightToTheSocket) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  std::filesystem::permissions(dir_, std::filesystem::perms(0755));
  Child child({"--socket", socket_, "jobs"}, Stderr::pipe, 65534);
  EXPECT_EQ(child.wait(), 3) << child.err();
  EXPECT_THAT(child.err(), HasSubstr("group ferry"));
}

TEST(CtlProcess, ResultThatCannotBeWrittenIsAFailure) {
  const std::string command = std::string(MIGRATE_CTL) + " help > /dev/full 2> /dev/null";
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
}

TEST(CtlProcess, CompletionIsValidBash) {
  const std::string command =
      std::string(MIGRATE_CTL) +
      " completion bash > /tmp/ferry-completion.$$ && bash -c 'source /tmp/ferry-completion.'$$'; "
      "COMP_WORDS=(migrate-ctl mig); COMP_CWORD=1; _migrate_ctl; "
      "[[ ${COMPREPLY[*]} == migrate ]] || exit 3; "
      "COMP_WORDS=(migrate-ctl migrate --dry); COMP_CWORD=2; _migrate_ctl; "
      "[[ ${COMPREPLY[*]} == --dry-run ]] || exit 4'; "
      "code=$?; rm -f /tmp/ferry-completion.$$; exit $code";
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 0);
}

}  // namespace
}  // namespace ferry::ctl
