// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/messages.h"

#include "api/api_types.h"

#include <gtest/gtest.h>

namespace ferry::daemon {
namespace {

// As a peer gets it: through text.
template <typename T>
Json travelled(const T& message) {
  return Json::parse(to_json(message).dump());
}

PrepareRequest sample() {
  PrepareRequest request;
  request.vm = "web1";
  request.create = true;
  request.streams = 4;
  request.definition = "<domain/>";
  request.generation = 7;
  request.peer_port = 7391;
  request.keep_s = 3600;
  const std::string uuid = "8a1a5f0e-7c1e-4a7e-9b1d-0123456789a";
  request.disks.push_back({0, "vda", "/dev/vg/web1", "data", 1 << 30, 512, uuid + "0"});
  request.disks.push_back({1, "vdb", "/dev/vg/web1-swap", "swap", 1 << 28, 4096, uuid + "1", 6});
  return request;
}

TEST(Messages, PrepareSurvivesTheJourney) {
  auto back = prepare_request_from(travelled(sample()));
  ASSERT_TRUE(back.ok()) << back.error().message();
  EXPECT_EQ(back->vm, "web1");
  EXPECT_TRUE(back->create);
  ASSERT_EQ(back->disks.size(), 2u);
  EXPECT_EQ(back->disks[1].path, "/dev/vg/web1-swap");
  EXPECT_EQ(back->disks[1].size_bytes, 1u << 28);
  EXPECT_EQ(back->disks[1].logical_block_size, 4096u);
  EXPECT_EQ(back->disks[0].changes_since, 0u);
  EXPECT_EQ(back->disks[1].changes_since, 6u);
  EXPECT_EQ(back->keep_s, 3600u);
}

TEST(Messages, ErrorsSurviveTheJourneyAndStandInForAnswers) {
  const auto error = make_error(Errc::busy, "the volume is in use", EBUSY, "look who has it");
  auto reply = prepare_reply_from(travelled(error));
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code, Errc::busy);
  EXPECT_EQ(reply.error().what, error.what);
  EXPECT_EQ(reply.error().sys, EBUSY);
  EXPECT_EQ(reply.error().hint, error.hint);
}

// Whatever field a peer spoils, the answer is an error and not a crash or a guess.
TEST(Messages, EverySpoiltFieldIsRefused) {
  const Json good = travelled(sample());
  const Json spoilers[] = {nullptr, -1, 1.5, "x", Json::array(), Json::object(), std::string(5000, 'x'),
                           std::uint64_t{1} << 63};
  for (const auto& [key, value] : good.items()) {
    Json without = good;
    without.erase(key);
    EXPECT_FALSE(prepare_request_from(without).ok()) << "without " << key;
    for (const auto& spoiler : spoilers) {
      if (spoiler.type() == value.type() && !(spoiler.is_string() && spoiler.get<std::string>().size() > 4096)) continue;
      Json spoilt = good;
      spoilt[key] = key == "definition" && spoiler.is_string() ? Json(std::string(kMaxDefinitionLength + 1, 'x')) : spoiler;
      EXPECT_FALSE(prepare_request_from(spoilt).ok()) << key << " = " << spoiler.dump().substr(0, 20);
    }
  }
  for (const auto& [key, value] : good["disks"][0].items()) {
    Json without = good;
    without["disks"][0].erase(key);
    EXPECT_FALSE(prepare_request_from(without).ok()) << "disk without " << key;
    Json spoilt = good;
    spoilt["disks"][0][key] = nullptr;
    EXPECT_FALSE(prepare_request_from(spoilt).ok()) << "disk with spoilt " << key;
  }
}

TEST(Messages, LimitsHold) {
  auto many = sample();
  for (std::uint32_t n = 2; n <= kMaxDisks; ++n) many.disks.push_back({n, "vdx", "/dev/x", "data", 4096, 512, many.disks[0].uuid});
  EXPECT_FALSE(prepare_request_from(travelled(many)).ok());
  many.disks.pop_back();
  EXPECT_TRUE(prepare_request_from(travelled(many)).ok());

  auto relative = sample();
  relative.disks[0].path = "etc/passwd";
  EXPECT_FALSE(prepare_request_from(travelled(relative)).ok());
  auto twice = sample();
  twice.disks[1].index = 0;
  EXPECT_FALSE(prepare_request_from(travelled(twice)).ok());
  auto kept = sample();
  kept.keep_s = api::kTimeoutSMax + 1;
  EXPECT_FALSE(prepare_request_from(travelled(kept)).ok());
  auto streams = sample();
  streams.streams = 17;
  EXPECT_FALSE(prepare_request_from(travelled(streams)).ok());
}

TEST(Messages, PrepareReplySaysWhatIsThere) {
  PrepareReply reply{{{0, "/dev/vg/web1", "use", Base::exact}, {1, "/dev/vg/web1-swap", "create", Base::none}}, ""};
  auto back = prepare_reply_from(travelled(reply));
  ASSERT_TRUE(back.ok()) << back.error().message();
  EXPECT_EQ(back->disks[0].base, Base::exact);
  EXPECT_EQ(back->disks[1].base, Base::none);
  Json odd = travelled(reply);
  odd["disks"][0]["base"] = "all";
  EXPECT_FALSE(prepare_reply_from(odd).ok());
  odd["disks"][0].erase("base");
  EXPECT_FALSE(prepare_reply_from(odd).ok());
}

TEST(Messages, OnlyAnAbortThatSaysSoDiscards) {
  EXPECT_TRUE(discards(Json::parse(abort_message(true).dump())));
  EXPECT_FALSE(discards(abort_message(false)));
  EXPECT_FALSE(discards(plain_message("abort")));
}

TEST(Messages, HelloNamesItsPurpose) {
  for (auto purpose : {Purpose::control, Purpose::data, Purpose::libvirt, Purpose::probe, Purpose::owner}) {
    Hello hello;
    hello.version = "1";
    hello.host = "a";
    hello.purpose = purpose;
    hello.session = "s";
    auto back = hello_from(travelled(hello));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->purpose, purpose);
  }
  Json odd = travelled(Hello{});
  odd["purpose"] = "shell";
  EXPECT_FALSE(hello_from(odd).ok());
  EXPECT_FALSE(hello_from(Json::array()).ok());
  EXPECT_FALSE(hello_from(plain_message("welcome")).ok());
}

TEST(Messages, QuestionsAboutOwnersAreChecked) {
  const OwnerQuestion asked{"revoke", 7, {sample().disks[0].uuid, sample().disks[1].uuid}};
  auto back = owner_question_from(travelled(asked), "revoke");
  ASSERT_TRUE(back.ok()) << back.error().message();
  EXPECT_EQ(back->generation, 7u);
  EXPECT_EQ(back->uuids, asked.uuids);
  EXPECT_FALSE(owner_question_from(travelled(asked), "return").ok());
  Json odd = travelled(asked);
  odd["disks"][0]["uuid"] = "../../etc";
  EXPECT_FALSE(owner_question_from(odd, "revoke").ok());
  odd = travelled(asked);
  odd["generation"] = -1;
  EXPECT_FALSE(owner_question_from(odd, "revoke").ok());
}

TEST(Messages, DigestsSurviveTheJourney) {
  auto back = digests_from(travelled(std::vector<DiskDigest>{{0, "abc", 0}, {1, "def", 7}}));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ((*back)[1].digest, "def");
  EXPECT_EQ((*back)[1].mismatches, 7u);
}

}  // namespace
}  // namespace ferry::daemon
