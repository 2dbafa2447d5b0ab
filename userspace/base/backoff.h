// SPDX-License-Identifier: GPL-2.0-or-later
// The pause before something that failed is tried again. Thread-safety: pure.
#pragma once

#include <algorithm>

namespace ferry {

// `first` after the first failure, doubled with each of the `failures` before it, never longer than `last`.
template <typename Duration>
Duration doubled_pause(Duration first, Duration last, unsigned failures) {
  for (unsigned n = 0; n < failures && first < last; ++n) first *= 2;
  return std::min(first, last);
}

}  // namespace ferry
