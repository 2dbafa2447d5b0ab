// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/owner_types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/fake_backend.h"

namespace ferry::api {
namespace {

using testing::HasSubstr;

Json json(const std::string& text) {
  auto value = parse_json(text, Errc::usage);
  EXPECT_TRUE(value.ok()) << text;
  return value.ok() ? *value : Json();
}

// What a reader of requests says of this text; "accepted" if nothing.
template <typename Body>
std::string why(Result<Body> (*decode)(const Json&), const std::string& text) {
  auto parsed = parse_json(text, Errc::usage);
  if (!parsed.ok()) return parsed.error().message();
  const auto body = decode(*parsed);
  if (body.ok()) return "accepted";
  EXPECT_EQ(body.error().code, Errc::usage);
  return body.error().message();
}

TEST(OwnerList, BothWays) {
  OwnerList list{"hosta", sample_owners()};
  list.disks[1].owner = DiskOwner::unknown;
  list.disks[1].owner_host.reset();
  list.disks[1].owner_note = "hostb has not answered";
  list.disks[1].volume = Presence::absent;
  list.disks[1].filter.reset();
  list.disks[1].barred.reset();
  list.disks[1].since.reset();
  list.disks[1].direction = Direction::in;
  const auto text = write_json(encode(list));
  const auto again = decode_owners(json(text));
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_EQ(write_json(encode(*again)), text);
}

TEST(OwnerList, EveryContractFieldIsThere) {
  const Json list = encode(OwnerList{"hosta", sample_owners()});
  EXPECT_EQ(list.at("host"), "hosta");
  const Json& disk = list.at("disks").at(0);
  for (const char* field :
       {"vm", "target", "path", "role", "size_bytes", "uuid", "generation", "holding", "owner", "owner_host",
        "owner_note", "session", "direction", "peer", "peer_host", "since", "reason", "verified", "volume", "filter",
        "must_be_barred", "barred"})
    EXPECT_TRUE(disk.contains(field)) << field;
  EXPECT_EQ(disk.size(), 22u);  // a new one belongs into docs/api.md
  EXPECT_EQ(disk.at("owner"), "peer");
  EXPECT_EQ(disk.at("volume"), "present");
  EXPECT_EQ(disk.at("since"), "2025-01-31T12:34:56.000Z");
}

TEST(OwnerList, NewerDaemonIsUnderstoodWrongTypesAreNot) {
  EXPECT_TRUE(decode_owners(json(R"({"host":"a","disks":[{"path":"/dev/x","colour":"red","holding":"lent"}]})")).ok());
  const auto wrong = decode_owners(json(R"({"disks":[{"path":"/dev/x"},{"path":"/dev/y","generation":-1}]})"));
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().code, Errc::protocol);
  EXPECT_THAT(wrong.error().what, HasSubstr("disks[1].generation"));
  EXPECT_FALSE(decode_owners(json(R"({"disks":[{"path":"/dev/x","owner":"everybody"}]})")).ok());
  EXPECT_FALSE(decode_owners(json(R"({"disks":[{"path":"/dev/x","since":"yesterday"}]})")).ok());
  EXPECT_FALSE(decode_owners(json(R"({"disks":[{"target":"vda"}]})")).ok());
}

TEST(ForceRequest, BothWaysAndDefaults) {
  const auto minimal = decode_force(json(R"({"vm":"web1"})"));
  ASSERT_TRUE(minimal.ok());
  EXPECT_FALSE(minimal->peer_is_dead);
  const auto full = decode_force(json(R"({"path":"/dev/vg0/web1","peer_is_dead":true})"));
  ASSERT_TRUE(full.ok());
  EXPECT_TRUE(full->peer_is_dead);
  EXPECT_EQ(write_json(encode(*full)), R"({"path":"/dev/vg0/web1","peer_is_dead":true})");
  EXPECT_EQ(write_json(encode(*minimal)), R"({"vm":"web1","peer_is_dead":false})");
}

TEST(ReleaseRequest, BothWaysAndDefaults) {
  const auto minimal = decode_release(json(R"({"path":"/dev/vg0/web1"})"));
  ASSERT_TRUE(minimal.ok());
  EXPECT_FALSE(minimal->unverified);
  const auto full = decode_release(json(R"({"vm":"web1","unverified":true})"));
  ASSERT_TRUE(full.ok());
  EXPECT_TRUE(full->unverified);
  EXPECT_EQ(write_json(encode(*full)), R"({"vm":"web1","unverified":true})");
}

// Nothing that could be taken for "the peer is dead" unless it is exactly that.
TEST(OwnerRequests, HostileText) {
  for (const char* word : {"1", "\"true\"", "\"\"", "[true]", "{}", "0.0"}) {
    EXPECT_THAT(why(decode_force, std::string(R"({"vm":"web1","peer_is_dead":)") + word + "}"),
                HasSubstr("peer_is_dead must be true or false"));
    EXPECT_THAT(why(decode_release, std::string(R"({"vm":"web1","unverified":)") + word + "}"),
                HasSubstr("unverified must be true or false"));
  }
  EXPECT_THAT(why(decode_force, R"({"vm":"web1","peer_is_dead":false,"peer_is_dead":true})"), HasSubstr("twice"));
  EXPECT_THAT(why(decode_force, R"({"vm":"web1","unverified":true})"), HasSubstr("unknown field \"unverified\""));
  EXPECT_THAT(why(decode_release, R"({"vm":"web1","peer_is_dead":true})"), HasSubstr("unknown field"));
  for (const char* text : {"{}", R"({"vm":""})", R"({"vm":null,"path":null})", R"({"vm":"a","path":"/dev/x"})"}) {
    EXPECT_THAT(why(decode_force, text), HasSubstr("exactly one")) << text;
    EXPECT_THAT(why(decode_release, text), HasSubstr("exactly one")) << text;
  }
  for (const char* text : {R"({"path":"vg0/web1"})", R"({"path":"../x"})", R"({"path":"/dev/\u001b[2J"})",
                           R"({"vm":"a\nb"})", R"({"vm":7})", R"({"vm":["a"]})", "[]", "null", "7", "{", ""}) {
    EXPECT_NE(why(decode_force, text), "accepted") << text;
    EXPECT_NE(why(decode_release, text), "accepted") << text;
    EXPECT_NE(why(decode_owner_query, text), "accepted") << text;
  }
  EXPECT_THAT(why(decode_force, "{\"vm\":\"" + std::string(256, 'a') + "\"}"), HasSubstr("longer than 255"));
  EXPECT_THAT(why(decode_force, "{\"path\":\"/" + std::string(4096, 'a') + "\"}"), HasSubstr("longer than 4096"));
  EXPECT_THAT(why(decode_owner_query, R"({"vm":"a","path":"/dev/x"})"), HasSubstr("only one"));
  EXPECT_EQ(why(decode_owner_query, "{}"), "accepted");
}

TEST(OwnerAnswers, ForcedAndReleased) {
  const Forced done{"web1", "7f3a", {"/dev/vg0/web1"}, 3, std::nullopt};
  EXPECT_EQ(write_json(encode(done)),
            R"({"vm":"web1","session":"7f3a","paths":["/dev/vg0/web1"],"generation":3,"job":null})");
  Forced by_job = done;
  by_job.generation.reset();
  by_job.job = "7f3a";
  for (const auto& forced : {done, by_job}) {
    const auto again = decode_forced(encode(forced));
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_EQ(write_json(encode(*again)), write_json(encode(forced)));
  }
  const Released released{"web1", {"/dev/vg0/web1", "/dev/vg0/web1-swap"}};
  const auto again = decode_released(encode(released));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(write_json(encode(*again)), R"({"vm":"web1","paths":["/dev/vg0/web1","/dev/vg0/web1-swap"]})");
  EXPECT_FALSE(decode_released(json(R"({"paths":[1]})")).ok());
}

}  // namespace
}  // namespace ferry::api
