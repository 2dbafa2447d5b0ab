// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire/tls_context.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <unistd.h>

#include <cerrno>

namespace ferry::wire {
namespace {

std::string openssl_reason() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  return reason != nullptr ? reason : "no further details";
}

Error bad_file(const std::string& what, const std::string& path) {
  return make_error(Errc::permission, "cannot use " + path + " as " + what + ": " +
                    openssl_reason(), 0, "it has to be a PEM file; see the chapter on keys");
}

Status check_readable(const std::string& path) {
  if (access(path.c_str(), R_OK) == 0) return ok_status();
  return sys_error("cannot read " + path, errno,
                   "each host needs a CA certificate, its own certificate and its key");
}

}  // namespace

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

Result<std::shared_ptr<TlsContext>> TlsContext::load(const TlsFiles& files) {
  for (const auto* path : {&files.ca, &files.cert, &files.key}) FERRY_TRY(check_readable(*path));
  ERR_clear_error();
  SSL_CTX* ctx = SSL_CTX_new(TLS_method());
  if (ctx == nullptr) return make_error(Errc::failed, "cannot set up TLS: " + openssl_reason());
  std::shared_ptr<TlsContext> context(new TlsContext(ctx));

  SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION);
  // All of TLS 1.3's common suites are strong; 128-bit AES is the fastest where the CPU has AES
  // instructions, and the keys of this link live no longer than one migration.
  if (SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                    "TLS_CHACHA20_POLY1305_SHA256") != 1)
    return make_error(Errc::failed, "cannot choose TLS ciphers: " + openssl_reason());
  SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
  // Every connection proves both certificates anew.
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(ctx, 0);
  // Moving buffers: a write is continued wherever its rest lies now. Partial writes: the lock of a
  // channel is given up between records, so reader and writer take turns.
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_default_read_buffer_len(ctx, 64 * 1024);
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);

  if (SSL_CTX_load_verify_locations(ctx, files.ca.c_str(), nullptr) != 1)
    return bad_file("the CA certificate", files.ca);
  if (SSL_CTX_use_certificate_chain_file(ctx, files.cert.c_str()) != 1)
    return bad_file("this host's certificate", files.cert);
  if (SSL_CTX_use_PrivateKey_file(ctx, files.key.c_str(), SSL_FILETYPE_PEM) != 1)
    return bad_file("this host's key", files.key);
  if (SSL_CTX_check_private_key(ctx) != 1)
    return make_error(Errc::permission, "the key " + files.key + " does not belong to the "
                      "certificate " + files.cert, 0, "put both from the same request there");
  return context;
}

}  // namespace ferry::wire
