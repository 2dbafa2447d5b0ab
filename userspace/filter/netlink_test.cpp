// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/netlink.h"

#include <gtest/gtest.h>
#include <linux/netlink.h>

#include <cstring>

namespace ferry::filter {
namespace {

// Attributes as the kernel lays them out, built by hand so that broken ones can be made too.
class Attributes {
 public:
  template <typename T>
  Attributes& number(uint16_t type, T value) {
    return bytes(type, &value, sizeof value);
  }
  Attributes& bytes(uint16_t type, const void* data, size_t length) {
    nlattr header{static_cast<uint16_t>(NLA_HDRLEN + length), type};
    append(&header, sizeof header);
    append(data, length);
    data_.resize((data_.size() + 3) / 4 * 4);
    return *this;
  }
  std::span<const std::byte> span() const { return data_; }

 private:
  void append(const void* data, size_t length) {
    auto* first = static_cast<const std::byte*>(data);
    data_.insert(data_.end(), first, first + length);
  }
  std::vector<std::byte> data_;
};

constexpr TrackerUuid kUuid{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

TEST(DecodeTest, AllAttributes) {
  Attributes attributes;
  attributes.bytes(FERRY_A_UUID, kUuid.data(), kUuid.size())
      .bytes(FERRY_A_NAME, "vg-web1", 8)
      .number<uint32_t>(FERRY_A_STATE, FERRY_STATE_FENCED)
      .number<uint32_t>(FERRY_A_FLAGS, FERRY_TF_BOUND | FERRY_TF_OWNED)
      .number<uint32_t>(FERRY_A_BLOCK_SHIFT, 12)
      .number<uint64_t>(FERRY_A_SECTORS, 8193)
      .number<uint64_t>(FERRY_A_SWAPS, 3)
      .number<uint64_t>(FERRY_A_DIRTY, 4)
      .number<uint64_t>(FERRY_A_NEWLY, 5)
      .number<uint64_t>(FERRY_A_HELD, 6)
      .number<uint64_t>(FERRY_A_INFLIGHT, 7)
      .number<uint64_t>(FERRY_A_FENCED_WRITES, 8)
      .number<uint32_t>(FERRY_A_EVENT, FERRY_EV_WATCHDOG_THAW);
  auto decoded = decode_attributes(attributes.span());
  ASSERT_TRUE(decoded.ok()) << decoded.error().message();
  const TrackerInfo& info = decoded->tracker;
  EXPECT_EQ(info.uuid, kUuid);
  EXPECT_EQ(info.name, "vg-web1");
  EXPECT_EQ(info.state, FERRY_STATE_FENCED);
  EXPECT_TRUE(info.bound() && info.owned());
  EXPECT_FALSE(info.invalid());
  EXPECT_EQ(info.nr_blocks, 1025u);
  EXPECT_EQ(info.swaps, 3u);
  EXPECT_EQ(info.dirty, 4u);
  EXPECT_EQ(info.dirty_bytes(), 16384u);
  EXPECT_EQ(info.newly, 5u);
  EXPECT_EQ(info.held, 6u);
  EXPECT_EQ(info.inflight, 7u);
  EXPECT_EQ(info.fenced_writes, 8u);
  EXPECT_EQ(decoded->event, FERRY_EV_WATCHDOG_THAW);
}

TEST(DecodeTest, NewerAttributesAreSkipped) {
  Attributes attributes;
  attributes.bytes(FERRY_A_UUID, kUuid.data(), kUuid.size()).number<uint64_t>(FERRY_A_MAX + 9, 1);
  auto decoded = decode_attributes(attributes.span());
  ASSERT_TRUE(decoded.ok());
  EXPECT_FALSE(decoded->event);
}

TEST(DecodeTest, BrokenMessagesAreRefused) {
  EXPECT_FALSE(decode_attributes({}).ok());
  Attributes short_uuid, short_number, huge_shift;
  short_uuid.bytes(FERRY_A_UUID, kUuid.data(), 15);
  EXPECT_FALSE(decode_attributes(short_uuid.span()).ok());
  short_number.bytes(FERRY_A_UUID, kUuid.data(), 16).number<uint32_t>(FERRY_A_SECTORS, 1);
  EXPECT_FALSE(decode_attributes(short_number.span()).ok());
  huge_shift.bytes(FERRY_A_UUID, kUuid.data(), 16).number<uint32_t>(FERRY_A_BLOCK_SHIFT, 77);
  EXPECT_FALSE(decode_attributes(huge_shift.span()).ok());
}

TEST(NamesTest, FlagsAndStates) {
  EXPECT_EQ(flag_names(0), "-");
  EXPECT_EQ(flag_names(FERRY_TF_BOUND | FERRY_TF_OWNED), "bound,owned");
  EXPECT_STREQ(state_name(FERRY_STATE_GATED), "gated");
  EXPECT_STREQ(event_name(FERRY_EV_DETACHED), "detached");
}

}  // namespace
}  // namespace ferry::filter
