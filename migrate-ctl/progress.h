// SPDX-License-Identifier: GPL-2.0-or-later
// How a running job is shown on stderr: a bar on a terminal, a line at each change of phase
// otherwise, JSON lines on request, or nothing.
// Thread-safety: one thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "api/api_types.h"
#include "console.h"

namespace ferry::ctl {

class Progress {
 public:
  virtual ~Progress() = default;
  virtual void update(const api::JobStatus& job) = 0;
  // A remark of ours ("aborting …"), on a line of its own.
  virtual void note(std::string_view text) = 0;
  // The current state on one line, whatever the way of showing (SIGUSR1).
  virtual void one_line(const api::JobStatus& job) = 0;
  // Leaves the terminal in order; nothing is drawn afterwards.
  virtual void close() {}
};

std::unique_ptr<Progress> make_progress(const Console& console, bool json_lines);

// "pre-copy round 2", "switching", …
std::string phase_text(const api::JobStatus& job);
// Bytes that the current rounds still have to carry.
uint64_t left_bytes(const api::JobStatus& job);
// The bar in at most `width` columns; figures are dropped from the right if it is narrow.
std::string bar_line(const api::JobStatus& job, size_t width);
// The same figures without a bar.
std::string plain_line(const api::JobStatus& job);
api::Json progress_json(const api::JobStatus& job);

}  // namespace ferry::ctl
