// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/move_job.h"

#include <gtest/gtest.h>

namespace ferry::daemon {
namespace {

Errand sample() {
  Errand errand;
  errand.job = "d65c4b8b3040";
  errand.request.vm = "web1";
  errand.request.destination = "hostb:7391";
  errand.request.create = true;
  errand.request.roles["vdb"] = api::DiskRole::swap;
  errand.request.keep_s = 0;
  errand.request.retry_for_s = 3600;
  errand.attempt = 3;
  errand.paused = true;
  return errand;
}

TEST(Errand, SurvivesARestart) {
  auto back = parse_errand(errand_text(sample()));
  ASSERT_TRUE(back.ok()) << back.error().message();
  EXPECT_EQ(back->job, "d65c4b8b3040");
  EXPECT_EQ(back->attempt, 3u);
  EXPECT_TRUE(back->paused);
  EXPECT_EQ(api::encode(back->request), api::encode(sample().request));
}

TEST(Errand, AnythingElseIsRefused) {
  EXPECT_FALSE(parse_errand("").ok());
  EXPECT_FALSE(parse_errand("[]").ok());
  EXPECT_FALSE(parse_errand("{}").ok());
  const Json good = Json::parse(errand_text(sample()));
  for (const auto& [key, value] : good.items()) {
    for (const Json& spoiler : {Json(nullptr), Json(-1), Json::array()}) {
      Json spoilt = good;
      spoilt[key] = spoiler;
      EXPECT_FALSE(parse_errand(spoilt.dump()).ok()) << key << " = " << spoiler;
    }
    Json without = good;
    without.erase(key);
    EXPECT_FALSE(parse_errand(without.dump()).ok()) << "without " << key;
  }
}

}  // namespace
}  // namespace ferry::daemon
