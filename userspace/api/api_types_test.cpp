// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/api_types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/fake_backend.h"

namespace ferry::api {
namespace {

Result<StartRequest> start(const std::string& text) {
  auto json = parse_json(text, Errc::usage);
  if (!json.ok()) return std::move(json).error();
  return decode_start(*json);
}

std::string why(const std::string& text) {
  const auto request = start(text);
  if (request.ok()) return "accepted";
  EXPECT_EQ(request.error().code, Errc::usage);
  return request.error().message();
}

TEST(StartRequest, MinimalAndFull) {
  const auto minimal = start(R"({"vm":"web1","destination":"hostb"})");
  ASSERT_TRUE(minimal.ok());
  EXPECT_EQ(minimal->vm, "web1");
  EXPECT_FALSE(minimal->create);
  EXPECT_FALSE(minimal->max_downtime_ms);

  const auto full = start(
      R"({"vm":"web1","destination":"hostb:7000","create":true,"roles":{"vda":"data","vdb":"swap"},
          "max_downtime_ms":250,"bandwidth_bytes_per_s":100000000,"streams":4,"timeout_s":600})");
  ASSERT_TRUE(full.ok()) << full.error().message();
  EXPECT_TRUE(full->create);
  EXPECT_EQ(full->roles.at("vdb"), DiskRole::swap);
  EXPECT_EQ(*full->max_downtime_ms, 250u);
  EXPECT_EQ(*full->streams, 4u);
  // What we write we read.
  const auto again = decode_start(encode(*full));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(write_json(encode(*again)), write_json(encode(*full)));
}

TEST(StartRequest, NullMeansNotGiven) {
  const auto request = start(R"({"vm":"web1","destination":"hostb","streams":null})");
  ASSERT_TRUE(request.ok());
  EXPECT_FALSE(request->streams);
}

TEST(StartRequest, NamesTheWrongField) {
  EXPECT_THAT(why(R"({"vm":"web1"})"), testing::HasSubstr("destination is missing"));
  EXPECT_THAT(why(R"({"vm":"","destination":"b"})"), testing::HasSubstr("vm is empty"));
  EXPECT_THAT(why(R"({"vm":7,"destination":"b"})"), testing::HasSubstr("vm must be a string"));
  EXPECT_THAT(why(R"({"vm":"w","destination":"b","speed":1})"),
              testing::HasSubstr("unknown field \"speed\""));
  EXPECT_THAT(why(R"({"vm":"w","destination":"b","create":1})"),
              testing::HasSubstr("create must be true or false"));
  EXPECT_THAT(why(R"({"vm":"w","destination":"b","streams":0})"),
              testing::HasSubstr("streams must be a whole number from 1 to 16"));
  for (const char* value : {"17", "-1", "4.0", "1e3", "\"4\"", "true", "99999999999999999999"})
    EXPECT_THAT(why(std::string(R"({"vm":"w","destination":"b","streams":)") + value + "}"),
                testing::HasSubstr("field streams"))
        << value;
  EXPECT_THAT(why(R"({"vm":"w","destination":"b","roles":{"vda":"root"}})"),
              testing::HasSubstr("roles.vda must be one of data, swap, scratch"));
  EXPECT_THAT(why(R"({"vm":"w","destination":"b","roles":{"vda":null}})"),
              testing::HasSubstr("roles.vda"));
  EXPECT_THAT(why(R"({"vm":"w","destination":"b","roles":{"../x":"data"}})"),
              testing::HasSubstr("roles"));
  EXPECT_THAT(why(R"({"vm":"w","destination":"b","roles":["vda"]})"),
              testing::HasSubstr("roles must be an object"));
}

TEST(StartRequest, HostileText) {
  EXPECT_NE(why(""), "accepted");
  EXPECT_NE(why("[]"), "accepted");
  EXPECT_NE(why("null"), "accepted");
  EXPECT_NE(why("{"), "accepted");
  EXPECT_NE(why("{\"vm\":\"\xff\xfe\",\"destination\":\"b\"}"), "accepted");
  EXPECT_THAT(why(R"({"vm":"a\nb","destination":"b"})"), testing::HasSubstr("control character"));
  EXPECT_THAT(why("{\"vm\":\"" + std::string(256, 'a') + "\",\"destination\":\"b\"}"),
              testing::HasSubstr("longer than 255"));
  EXPECT_THAT(why(R"({"vm":"a","vm":"b","destination":"b"})"), testing::HasSubstr("twice"));
  EXPECT_THAT(why(std::string(30'000, '[') + std::string(30'000, ']')),
              testing::HasSubstr("nested too deeply"));
  EXPECT_THAT(why(R"({"vm":)" + std::string(60'000, '[')), testing::HasSubstr("JSON"));
}

TEST(HostPort, Forms) {
  EXPECT_EQ(parse_host_port("hostb")->port, kPeerPortDefault);
  EXPECT_EQ(parse_host_port("hostb:7000")->port, 7000);
  EXPECT_EQ(parse_host_port("[2001:db8::1]:80")->host, "2001:db8::1");
  EXPECT_EQ(to_string(*parse_host_port("[2001:db8::1]")), "[2001:db8::1]:7391");
  for (const char* bad : {"", ":1", "hostb:", "hostb:0", "hostb:65536", "hostb:x", "host b",
                          "a:1:2", "[::1", "[]", "-x", "host/b", "hostb:99999999999"})
    EXPECT_FALSE(parse_host_port(bad).ok()) << bad;
}

TEST(OtherRequests, AttachDetachDoctor) {
  const auto detach = [](const char* text) {
    return decode_detach(*parse_json(text, Errc::usage));
  };
  EXPECT_TRUE(detach(R"({"path":"/dev/vg/a"})").ok());
  EXPECT_FALSE(detach(R"({"path":"/dev/vg/a","release":true})").ok());  // /v1/owners/release is for that
  EXPECT_FALSE(detach(R"({})").ok());
  EXPECT_FALSE(detach(R"({"path":"vg/a"})").ok());
  EXPECT_FALSE(decode_attach(*parse_json(R"({"path":"../x"})", Errc::usage)).ok());
  EXPECT_TRUE(decode_doctor(*parse_json("{}", Errc::usage)).ok());
  EXPECT_FALSE(decode_doctor(*parse_json(R"({"peer":"a b"})", Errc::usage)).ok());
}

TEST(Time, BothWays) {
  const auto time = parse_time("2025-01-31T12:34:56.007Z");
  ASSERT_TRUE(time);
  EXPECT_EQ(format_time(*time), "2025-01-31T12:34:56.007Z");
  EXPECT_EQ(format_time(Time{}), "1970-01-01T00:00:00.000Z");
  for (const char* bad : {"", "2025-01-31", "2025-06-31T00:00:00.000Z", "2025-01-31T12:34:56.007+",
                          "2025-13-01T00:00:00.000Z", " 025-01-31T12:34:56.007Z"})
    EXPECT_FALSE(parse_time(bad)) << bad;
}

TEST(JobStatus, BothWays) {
  for (const auto& job : {sample_job(), finished_job(), failed_job(Errc::not_converged)}) {
    const auto text = write_json(encode(job));
    const auto again = decode_job(*parse_json(text, Errc::protocol));
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_EQ(write_json(encode(*again)), text);
  }
}

TEST(JobStatus, EveryContractFieldIsThere) {
  const Json job = encode(sample_job());
  for (const char* field :
       {"id", "vm", "destination", "peer", "direction", "state", "phase_detail", "round", "disks",
        "rate_bytes_per_s", "dirty_rate_bytes_per_s", "residual_bytes", "memory", "progress",
        "eta_ms", "downtime_estimate_ms", "started_at", "ended_at", "total_ms", "rounds",
        "switchover", "error", "owner"})
    EXPECT_TRUE(job.contains(field)) << field;
  EXPECT_TRUE(job["ended_at"].is_null());
  EXPECT_EQ(job["disks"][1]["role"], "swap");
}

TEST(JobStatus, NewerDaemonIsUnderstoodWrongTypesAreNot) {
  EXPECT_TRUE(decode_job(*parse_json(R"({"id":"1","colour":"red"})", Errc::protocol)).ok());
  const auto wrong = decode_job(
      *parse_json(R"({"id":"1","disks":[{"name":"vda"},{"size_bytes":"big"}]})", Errc::protocol));
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().code, Errc::protocol);
  EXPECT_THAT(wrong.error().what, testing::HasSubstr("disks[1].size_bytes"));
  EXPECT_FALSE(decode_job(*parse_json(R"({"id":"1","state":"flying"})", Errc::protocol)).ok());
}

TEST(ErrorDocument, CodeMessageHintExit) {
  const Json json = encode(make_error(Errc::not_found, "no VM web9", ENOENT, "virsh list"));
  EXPECT_EQ(json["code"], "not_found");
  EXPECT_EQ(json["message"], "no VM web9: No such file or directory");
  EXPECT_EQ(json["hint"], "virsh list");
  EXPECT_EQ(json["exit_code"], 3);
  // A code of a later version keeps its exit code.
  const auto later = decode_error(*parse_json(R"({"code":"new_kind","message":"x","exit_code":6})",
                                              Errc::protocol));
  ASSERT_TRUE(later.ok());
  EXPECT_EQ(later->exit_code, 6);
  EXPECT_EQ(exit_code(later->error.code), 6);
}

TEST(WriteJson, BytesThatAreNotUtf8) {
  EXPECT_EQ(write_json(Json{{"path", "/dev/\xff"}}), "{\"path\":\"/dev/\xef\xbf\xbd\"}");
}

}  // namespace
}  // namespace ferry::api
