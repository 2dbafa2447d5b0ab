// SPDX-License-Identifier: GPL-2.0-or-later
// migrate-ctl own and release, as a process against the real API server with a fake daemon behind it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "api/api_server.h"
#include "api/fake_backend.h"
#include "child.h"

namespace ferry::ctl {
namespace {

using api::Json;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kForced = R"(force {"vm":"web1","peer_is_dead":true})";
constexpr const char* kAsked = R"(force {"vm":"web1","peer_is_dead":false})";

class OwnTest : public testing::Test {
 protected:
  OwnTest() {
    char name[] = "/tmp/ferry-own-XXXXXX";
    dir_ = ::mkdtemp(name);
    api::ApiServerOptions options;
    options.socket_path = socket_ = dir_ + "/ctl.sock";
    options.heartbeat = std::chrono::milliseconds(200);
    backend_.owned_disks = api::sample_owners();
    backend_.risk = make_error(Errc::usage, "hostb owns it; two hosts write", 0, "make sure that hostb is off");
    auto server = api::ApiServer::start(options, backend_, backend_.feed);
    EXPECT_TRUE(server.ok());
    if (server.ok()) server_ = std::move(*server);
  }
  ~OwnTest() override {
    server_.reset();
    std::filesystem::remove_all(dir_);
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

  std::string dir_;
  std::string socket_;
  std::string err_;
  api::FakeBackend backend_;
  std::unique_ptr<api::ApiServer> server_;
};

// ---- look --------------------------------------------------------------------------------------

TEST_F(OwnTest, ShowsAllOfAVmOfAVolume) {
  const auto text = run(0, {"own"});
  for (const char* part : {"web1: session 7f3a, to hostb (hostb:7391)", "vda", "/dev/vg0/web1-swap", "given", "hostb",
                           "2025-01-31T12:34:56.000Z", "yes (fenced)", "why: moved to hostb", "digests were equal"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(text, Not(HasSubstr("WARNING")));
  EXPECT_EQ(run(0, {"own", "web1"}), text);
  EXPECT_THAT(run(0, {"own", "/dev/vg0/web1-swap"}), AllOf(HasSubstr("web1-swap"), Not(HasSubstr("vda"))));
  EXPECT_EQ(run(0, {"own", "-q"}), "/dev/vg0/web1\n/dev/vg0/web1-swap\n");
  EXPECT_EQ(json(run(0, {"own", "--json"}))["disks"].size(), 2u);
  EXPECT_THAT(backend_.calls(), testing::IsSupersetOf({"owners ", "owners web1", "owners /dev/vg0/web1-swap"}));
}

TEST_F(OwnTest, NothingOnRecordIsSaidAnUnknownNameIsAnError) {
  run(3, {"own", "web9"});
  EXPECT_THAT(err_, HasSubstr("web9"));
  run(3, {"own", "/dev/vg0/web9"});
  run(2, {"own", "/dev/vg0/web1\x1b[2J"});
  backend_.owned_disks.clear();
  EXPECT_THAT(run(0, {"own"}), HasSubstr("no disk is on record"));
  EXPECT_EQ(json(run(0, {"own", "--json"}))["disks"].size(), 0u);
  EXPECT_EQ(run(0, {"own", "-q"}), "");
}

TEST_F(OwnTest, NamesAreSentAsTheyAre) {
  run(3, {"own", "a b&path=/dev/x%2f+é"});
  EXPECT_THAT(backend_.calls(), Contains("owners a b&path=/dev/x%2f+é"));
}

TEST_F(OwnTest, SaysWhatIsNotAsItHasToBe) {
  auto& disks = backend_.owned_disks;
  disks[0].filter.reset();
  disks[0].barred = false;
  disks[1].owner = api::DiskOwner::unknown;
  disks[1].owner_note = "granted to hostb, whose answer is missing";
  disks[1].volume = api::Presence::replaced;
  disks[1].reason = "another\x1b[2J reason";
  const auto text = run(0, {"own"});
  EXPECT_THAT(text, HasSubstr("WARNING: /dev/vg0/web1: nothing keeps it closed"));
  EXPECT_THAT(text, HasSubstr("WARNING: /dev/vg0/web1-swap: another volume lies there"));
  EXPECT_THAT(text, HasSubstr("unknown: granted to hostb"));
  EXPECT_THAT(text, HasSubstr("why vda: moved to hostb"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  disks.resize(1);
  disks[0].owner = api::DiskOwner::this_host;
  disks[0].holding = "owned";
  disks[0].must_be_barred = false;
  disks[0].barred = true;
  EXPECT_THAT(run(0, {"own"}), AllOf(HasSubstr("this host"), HasSubstr("yes (read-only)"),
                                     HasSubstr("migrate-ctl own --force /dev/vg0/web1")));
}

TEST_F(OwnTest, PrintsTheDefinitionForVirsh) {
  EXPECT_EQ(run(0, {"own", "web1", "--definition"}), "<domain>\n  <name>web1</name>\n</domain>\n");
  EXPECT_EQ(json(run(0, {"own", "/dev/vg0/web1", "--definition", "--json"}))["session"], "7f3a");
  EXPECT_THAT(backend_.calls(), testing::ElementsAre("definition web1", "definition /dev/vg0/web1"));
  run(2, {"own", "--definition"});
  EXPECT_THAT(err_, HasSubstr("needs a VM or a volume"));
  run(2, {"own", "web1", "--definition", "--force"});
  EXPECT_THAT(err_, HasSubstr("not both"));
}

// ---- force -------------------------------------------------------------------------------------

TEST_F(OwnTest, ForceWithoutTheWordTellsTheRisk) {
  run(2, {"own", "--force", "web1"});
  EXPECT_THAT(err_, AllOf(HasSubstr("two hosts write"), HasSubstr("hint: make sure that hostb is off")));
  EXPECT_THAT(backend_.calls(), testing::ElementsAre(kAsked));
}

TEST_F(OwnTest, ForceInAScriptAsksNobody) {
  EXPECT_THAT(run(0, {"own", "--force", "web1", "--peer-is-dead"}),
              AllOf(HasSubstr("this host's, generation 3"), HasSubstr("/dev/vg0/web1-swap")));
  EXPECT_EQ(json(run(0, {"own", "--force", "web1", "--peer-is-dead", "--json"}))["generation"], 3);
  EXPECT_EQ(run(0, {"own", "--force", "web1", "--peer-is-dead", "-q"}), "");
  EXPECT_THAT(backend_.calls(), testing::ElementsAre(kForced, kForced, kForced));
  run(0, {"own", "--force", "/dev/vg0/web1", "--peer-is-dead"});
  EXPECT_EQ(backend_.calls().back(), R"(force {"path":"/dev/vg0/web1","peer_is_dead":true})");
}

TEST_F(OwnTest, ForceOnATerminalWantsTheNameTyped) {
  for (const char* wrong : {"", "y", "web", "web11"}) {
    Child child = ctl({"own", "--force", "web1", "--peer-is-dead"}, Stderr::terminal);
    EXPECT_TRUE(child.wait_for_err("Type the name of the VM (web1)"));
    child.type(wrong);
    EXPECT_EQ(child.wait(), 1);
    EXPECT_THAT(child.err(), AllOf(HasSubstr("two hosts write"), HasSubstr("nothing was changed")));
  }
  EXPECT_THAT(backend_.calls(), Not(Contains(kForced)));
  Child child = ctl({"own", "--force", "/dev/vg0/web1", "--peer-is-dead"}, Stderr::terminal);
  EXPECT_TRUE(child.wait_for_err("Type the name of the VM (web1)"));
  child.type("web1");
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(backend_.calls().back(), R"(force {"path":"/dev/vg0/web1","peer_is_dead":true})");
}

TEST_F(OwnTest, ForceOnATerminalWithYesDoesNotAsk) {
  Child child = ctl({"own", "--force", "web1", "--peer-is-dead", "--yes"}, Stderr::terminal);
  EXPECT_EQ(child.wait(), 0);
  EXPECT_THAT(child.err(), Not(HasSubstr("Type")));
  EXPECT_THAT(backend_.calls(), testing::ElementsAre(kForced));
}

TEST_F(OwnTest, ForceOnATerminalAsksNothingWhereNothingIsAtStake) {
  backend_.risk.reset();
  Child child = ctl({"own", "--force", "web1", "--peer-is-dead"}, Stderr::terminal);
  EXPECT_EQ(child.wait(), 0);
  EXPECT_THAT(child.err(), Not(HasSubstr("Type")));
  EXPECT_THAT(backend_.calls(), AllOf(Contains(kAsked), Not(Contains(kForced))));
}

TEST_F(OwnTest, ForceOnATerminalThatIsRefusedDoesNotAsk) {
  backend_.risk = make_error(Errc::busy, "they are incomplete here");
  Child child = ctl({"own", "--force", "web1", "--peer-is-dead"}, Stderr::terminal);
  EXPECT_EQ(child.wait(), 4);
  EXPECT_THAT(child.err(), AllOf(HasSubstr("incomplete"), Not(HasSubstr("Type"))));
}

TEST_F(OwnTest, ForceOfAJobInDoubtWaitsForIt) {
  auto job = api::failed_job(Errc::owner_unknown, api::Owner::unknown);
  job.state = api::JobState::switching;
  job.ended_at.reset();
  backend_.publish(job);
  backend_.forced.job = "7f3a";
  {
    Child child = ctl({"own", "--force", "web1", "--peer-is-dead"});
    EXPECT_TRUE(backend_.wait_for(kForced));
    backend_.publish(api::failed_job(Errc::failed));  // taken back: the owner is the source
    EXPECT_EQ(child.wait(), 0) << child.err();
    EXPECT_THAT(child.out(), HasSubstr("this host's again"));
  }
  backend_.publish(api::failed_job(Errc::owner_unknown, api::Owner::destination));
  run(8, {"own", "--force", "web1", "--peer-is-dead"});
  EXPECT_THAT(err_, HasSubstr("are not this host's"));
}

TEST_F(OwnTest, ForceUsage) {
  run(2, {"own", "--force"});
  run(2, {"own", "--force", "--peer-is-dead"});
  run(2, {"own", "web1", "--peer-is-dead"});
  run(2, {"own", "--yes"});
  run(2, {"own", "web1", "web2"});
  run(2, {"own", "--force", std::string(256, 'a'), "--peer-is-dead"});
  EXPECT_THAT(backend_.calls(), testing::IsEmpty());
}

// ---- release -----------------------------------------------------------------------------------

TEST_F(OwnTest, Release) {
  EXPECT_THAT(run(0, {"release", "web1"}), HasSubstr("/dev/vg0/web1-swap: released"));
  EXPECT_EQ(json(run(0, {"release", "/dev/vg0/web1", "--json"}))["paths"].size(), 2u);
  EXPECT_EQ(run(0, {"release", "web1", "--unverified", "-q"}), "");
  EXPECT_THAT(backend_.calls(), testing::ElementsAre(R"(release {"vm":"web1","unverified":false})",
                                                     R"(release {"path":"/dev/vg0/web1","unverified":false})",
                                                     R"(release {"vm":"web1","unverified":true})"));
  backend_.failure = make_error(Errc::verify_mismatch, "never found equal", 0, "--unverified");
  run(6, {"release", "web1"});
  EXPECT_THAT(err_, HasSubstr("hint: --unverified"));
  run(2, {"release"});
}

}  // namespace
}  // namespace ferry::ctl
