// SPDX-License-Identifier: GPL-2.0-or-later
// An OpenSSL BIO over a non-blocking socket that never raises SIGPIPE (the stock one does).
// The BIO does not own the descriptor. Internal to wire/.
#pragma once

#include <openssl/bio.h>

namespace ferry::wire {

// nullptr when OpenSSL is out of memory.
BIO* make_socket_bio(int fd);

}  // namespace ferry::wire
