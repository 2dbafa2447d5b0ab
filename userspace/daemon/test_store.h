// SPDX-License-Identifier: GPL-2.0-or-later
// For tests only: ownership records in a directory of their own, gone at the end.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <optional>
#include <string>

#include "store/ownership_store.h"

namespace ferry::daemon {

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "ferry-records-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
    auto store = store::OwnershipStore::open((dir_ / "ownership.db").string());
    ASSERT_TRUE(store.ok()) << store.error().message();
    store_.emplace(std::move(*store));
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(dir_);
  }

  std::filesystem::path dir_;
  std::optional<store::OwnershipStore> store_;
};

}  // namespace ferry::daemon
