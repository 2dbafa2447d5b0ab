// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/rpc_frame.h"

#include <gtest/gtest.h>

#include "hypervisor/rpc_test_frames.h"

namespace ferry::hypervisor {
namespace {

TEST(FrameSplitter, CutsAtEveryByteBoundary) {
  const FrameBytes first = test::finish3_params_call(7, false);
  const FrameBytes second = test::ping();
  FrameBytes stream = first;
  stream.insert(stream.end(), second.begin(), second.end());
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    FrameSplitter splitter;
    std::vector<FrameBytes> frames;
    for (auto part : {std::span(stream).first(cut), std::span(stream).subspan(cut)}) {
      splitter.append(part);
      while (true) {
        auto frame = splitter.next();
        ASSERT_TRUE(frame.ok());
        if (!frame->has_value()) break;
        frames.push_back(std::move(**frame));
      }
    }
    ASSERT_EQ(frames.size(), 2u) << "cut at " << cut;
    EXPECT_EQ(frames[0], first);
    EXPECT_EQ(frames[1], second);
  }
}

TEST(FrameSplitter, RefusesImpossibleLengths) {
  for (uint32_t length : {0u, 4u, 27u, (32u << 20) + 5u, 0xffffffffu}) {
    FrameSplitter splitter;
    FrameBytes word;
    test::put(word, length);
    splitter.append(word);
    auto frame = splitter.next();
    ASSERT_FALSE(frame.ok()) << length;
    EXPECT_EQ(frame.error().code, Errc::protocol);
  }
}

TEST(FrameSplitter, AcceptsTheLargestLengthWithoutReservingIt) {
  FrameSplitter splitter;
  FrameBytes word;
  test::put(word, (32u << 20) + 4u);
  splitter.append(word);
  auto frame = splitter.next();
  ASSERT_TRUE(frame.ok());
  EXPECT_FALSE(frame->has_value());
}

TEST(RpcHeader, SurvivesTheRoundTrip) {
  const RpcHeader header{.procedure = 306, .serial = 42, .status = 1};
  const RpcHeader back = parse_header(make_frame(header));
  EXPECT_EQ(back.program, kRemoteProgram);
  EXPECT_EQ(back.version, kRemoteVersion);
  EXPECT_EQ(back.procedure, 306);
  EXPECT_EQ(back.type, RpcType::call);
  EXPECT_EQ(back.serial, 42u);
  EXPECT_EQ(back.status, 1);
}

TEST(FinishCall, IsToldFromOtherFrames) {
  EXPECT_TRUE(is_finish_call(parse_header(test::finish3_params_call(1, false))));
  EXPECT_TRUE(is_finish_call(parse_header(test::finish3_call(1, true))));
  EXPECT_TRUE(is_finish_call(parse_header(test::finish2_call(1, 0))));
  EXPECT_FALSE(is_finish_call(parse_header(test::ping())));
  EXPECT_FALSE(is_finish_call(RpcHeader{.procedure = 305}));
  EXPECT_FALSE(is_finish_call(RpcHeader{.procedure = 306, .type = RpcType::reply}));
  EXPECT_FALSE(is_finish_call(RpcHeader{.program = 0x20008087, .procedure = 306}));
}

TEST(FinishCall, TellsWhetherItIsCancelled) {
  for (bool cancelled : {false, true}) {
    for (const auto& frame : {test::finish3_params_call(1, cancelled),
                              test::finish3_call(1, cancelled), test::finish2_call(1, cancelled)}) {
      auto told = finish_is_cancelled(frame);
      ASSERT_TRUE(told.ok()) << told.error().message();
      EXPECT_EQ(*told, cancelled);
    }
  }
}

TEST(FinishCall, RefusesArgumentsCutShortOrTooLong) {
  const FrameBytes whole = test::finish3_params_call(1, false);
  for (size_t size = kFrameMinBytes; size < whole.size(); ++size)
    EXPECT_FALSE(finish_is_cancelled(std::span(whole).first(size)).ok()) << size;
  FrameBytes longer = whole;
  test::put(longer, 0);
  EXPECT_FALSE(finish_is_cancelled(longer).ok());
}

TEST(FinishReply, ReadsUuids) {
  auto domain = finished_domain("web01", "4dea22b3-1d52-d8f3-2516-782e98AB3fa0", 7);
  ASSERT_TRUE(domain.ok());
  EXPECT_EQ(domain->uuid[0], std::byte{0x4d});
  EXPECT_EQ(domain->uuid[13], std::byte{0xab});
  EXPECT_EQ(domain->uuid[15], std::byte{0xa0});
  EXPECT_EQ(domain->id, 7);
  for (const char* bad : {"", "4dea22b3", "4dea22b3-1d52-d8f3-2516-782e98ab3fg0",
                          "4dea22b3-1d52-d8f3-2516-782e98ab3fa000"})
    EXPECT_FALSE(finished_domain("web01", bad, 7).ok()) << bad;
}

TEST(FinishReply, CarriesTheDomain) {
  FinishedDomain domain{.name = "web01", .uuid = {std::byte{0xab}}, .id = 3};
  const RpcHeader call = parse_header(test::finish3_params_call(9, false));
  const FrameBytes frame = make_finish_reply(call, domain);
  const RpcHeader header = parse_header(frame);
  EXPECT_EQ(header.type, RpcType::reply);
  EXPECT_EQ(header.serial, 9u);
  EXPECT_EQ(header.procedure, 306);
  EXPECT_EQ(header.status, 0);
  FrameBytes expected;
  test::put_string(expected, "web01");
  expected.push_back(std::byte{0xab});
  expected.resize(expected.size() + 15);
  test::put(expected, 3);
  test::put(expected, 0);
  EXPECT_EQ(FrameBytes(frame.begin() + kFrameMinBytes, frame.end()), expected);
}

}  // namespace
}  // namespace ferry::hypervisor
