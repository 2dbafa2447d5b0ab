// SPDX-License-Identifier: GPL-2.0-or-later
// What is said about jobs and plans when they are known as a whole, and the exit code that goes
// with them. Thread-safety: one thread.
#pragma once

#include "api/api_types.h"
#include "console.h"

namespace ferry::ctl {

// Exit code of a job that has ended.
int exit_code_of(const api::JobStatus& job);
// After migrate, abort and status --watch: summary on stdout, reason of a failure on stderr.
int report_end(const Console& console, const api::JobStatus& job);
// A job at any moment, with all its figures, on stdout.
void print_job(const Console& console, const api::JobStatus& job);
void print_plan(const Console& console, const api::Plan& plan);
// One line per job.
void print_jobs(const Console& console, const std::vector<api::JobStatus>& jobs);

}  // namespace ferry::ctl
