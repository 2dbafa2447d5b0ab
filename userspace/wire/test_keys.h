// SPDX-License-Identifier: GPL-2.0-or-later
// For tests only: a throw-away CA, certificates signed by it, and connected pairs of channels.
// A TestPki owns its directory of PEM files. Thread-safety: none.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "wire/channel.h"

namespace ferry::wire::testing {

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

inline void check(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(std::string("test keys: ") + what);
}

class TestPki {
 public:
  TestPki() : ca_key_(make_key()), ca_(nullptr, X509_free) {
    std::string name = (std::filesystem::temp_directory_path() / "ferry-pki-XXXXXX").string();
    check(mkdtemp(name.data()) != nullptr, "mkdtemp");
    dir_ = name;
    ca_ = make_certificate("test CA", ca_key_.get(), nullptr, "", "CA:TRUE", -60, 3600);
    save(ca_.get(), ca_file());
  }
  ~TestPki() { std::filesystem::remove_all(dir_); }
  TestPki(const TestPki&) = delete;
  TestPki& operator=(const TestPki&) = delete;

  std::string ca_file() const { return dir_ + "/ca-cert.pem"; }

  // `names` as OpenSSL writes them: "DNS:hosta,IP:127.0.0.1".
  TlsFiles issue(const std::string& common_name, const std::string& names,
                 int64_t valid_until_s = 3600) {
    const Key key = make_key();
    const Certificate certificate = make_certificate(common_name, key.get(), ca_.get(), names,
                                                     "CA:FALSE", -7200, valid_until_s);
    const std::string base = dir_ + "/" + std::to_string(++issued_) + "-" + common_name;
    save(certificate.get(), base + "-cert.pem");
    FILE* file = std::fopen((base + "-key.pem").c_str(), "w");
    check(file != nullptr && PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr,
                                                  nullptr) == 1, "write a key");
    std::fclose(file);
    return {ca_file(), base + "-cert.pem", base + "-key.pem"};
  }
  std::shared_ptr<TlsContext> context(const std::string& name, const std::string& names) {
    return load(issue(name, names));
  }
  static std::shared_ptr<TlsContext> load(const TlsFiles& files) {
    auto context = TlsContext::load(files);
    check(context.ok(), context.ok() ? "" : context.error().message().c_str());
    return *context;
  }

 private:
  static Key make_key() {
    Key key(EVP_EC_gen("P-256"), EVP_PKEY_free);
    check(key != nullptr, "make a key");
    return key;
  }
  void extend(X509* certificate, X509* issuer, int nid, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    check(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1, value.c_str());
    X509_EXTENSION_free(extension);
  }
  Certificate make_certificate(const std::string& name, EVP_PKEY* key, X509* issuer,
                               const std::string& names, const std::string& constraints,
                               int64_t from_s, int64_t until_s) {
    Certificate made(X509_new(), X509_free);
    X509_set_version(made.get(), 2);
    ASN1_INTEGER_set_int64(X509_get_serialNumber(made.get()), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(made.get()), from_s);
    X509_gmtime_adj(X509_getm_notAfter(made.get()), until_s);
    X509_set_pubkey(made.get(), key);
    X509_NAME* subject = X509_get_subject_name(made.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509* signer = issuer != nullptr ? issuer : made.get();
    X509_set_issuer_name(made.get(), X509_get_subject_name(signer));
    extend(made.get(), signer, NID_basic_constraints, "critical," + constraints);
    if (!names.empty()) extend(made.get(), signer, NID_subject_alt_name, names);
    check(X509_sign(made.get(), ca_key_.get(), EVP_sha256()) > 0, "sign");
    return made;
  }
  static void save(X509* certificate, const std::string& path) {
    FILE* file = std::fopen(path.c_str(), "w");
    check(file != nullptr && PEM_write_X509(file, certificate) == 1, "write a certificate");
    std::fclose(file);
  }

  std::string dir_;
  Key ca_key_;
  Certificate ca_;
  int issued_ = 0;
  int64_t serial_ = 0;
};

inline std::pair<Fd, Fd> socket_pair() {
  int fds[2];
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
  return {Fd(fds[0]), Fd(fds[1])};
}

struct Pair {
  Result<std::unique_ptr<Channel>> client;
  Result<std::unique_ptr<Channel>> server;
};

// Both handshakes at once, over a local socket pair.
inline Pair handshake(std::shared_ptr<TlsContext> client_context,
                      std::shared_ptr<TlsContext> server_context, const std::string& host,
                      ChannelOptions options = {}) {
  auto [near, far] = socket_pair();
  auto server = std::async(std::launch::async, [&, socket = std::move(far)]() mutable {
    return Channel::accept(std::move(socket), server_context, 10000);
  });
  auto client = Channel::connect_over(std::move(near), host, client_context, 10000, options);
  // A failed client has closed its end, so the server cannot hang.
  return {std::move(client), server.get()};
}

}  // namespace ferry::wire::testing
