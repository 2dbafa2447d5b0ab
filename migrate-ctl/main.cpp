// SPDX-License-Identifier: GPL-2.0-or-later
#include <csignal>
#include <cstdio>
#include <exception>

#include "verb.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  int status = 1;
  try {
    status = ferry::ctl::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "migrate-ctl: internal error: %s\n", e.what());
  }
  // A result that did not reach its reader is a failure, unless there already is one.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status == 0) {
    std::fprintf(stderr, "migrate-ctl: cannot write the result\n");
    status = 1;
  }
  return status;
}
