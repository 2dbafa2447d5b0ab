// SPDX-License-Identifier: GPL-2.0-or-later
// TlsContext: keys and rules shared by all connections of a host: TLS 1.3 only, both sides show a
// certificate signed by our CA. One certificate serves for both directions.
// Immutable after load, shared by channels of any thread.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

struct ssl_ctx_st;

namespace ferry::wire {

struct TlsFiles {
  std::string ca;    // ca-cert.pem
  std::string cert;  // server-cert.pem, may carry a chain
  std::string key;   // server-key.pem
};

class TlsContext {
 public:
  static Result<std::shared_ptr<TlsContext>> load(const TlsFiles& files);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  ssl_ctx_st* native() const { return context_; }

 private:
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

}  // namespace ferry::wire
