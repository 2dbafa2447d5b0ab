// SPDX-License-Identifier: GPL-2.0-or-later
// Turns what OpenSSL reports into an Error an admin can act on: unreachable, not signed by our CA,
// wrong name, refused by the peer, lost. Internal to wire/. Thread-safe: no state.
#pragma once

#include <string>

#include "base/result.h"

namespace ferry::wire {

struct TlsFailure {
  std::string where;           // the peer, "hostb:7391"
  std::string doing;           // "the TLS handshake", "reading"
  bool after_handshake;
  int ssl_error;               // SSL_get_error()
  int sys;                     // errno of the failed call
  long verify_result;          // SSL_get_verify_result()
  unsigned long openssl_code;  // ERR_peek_error()
};

Error explain_tls_error(const TlsFailure& failure);

}  // namespace ferry::wire
