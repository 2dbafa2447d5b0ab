// SPDX-License-Identifier: GPL-2.0-or-later
// What the parts of Source share about its events. Private to migration/.
#pragma once

#include "migration/source.h"

namespace ferry::migration {

inline Error error_of(const SourceEvent& event, std::string_view what) {
  if (event.error) return *event.error;
  return make_error(Errc::failed, std::string(what));
}

}  // namespace ferry::migration
