// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire/channel.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "wire/frame.h"
#include "wire/socket.h"
#include "wire/socket_bio.h"
#include "wire/tls_error.h"

namespace ferry::wire {
namespace {

constexpr size_t kRecordBytes = 16 * 1024;  // the most TLS puts into one record

bool is_ip(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> scratch{};
  return inet_pton(AF_INET, host.c_str(), scratch.data()) == 1 ||
         inet_pton(AF_INET6, host.c_str(), scratch.data()) == 1;
}

std::string name_of(X509* certificate) {
  std::array<char, 256> text{};
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, text.data(),
                            text.size());
  return text.data();
}

}  // namespace

Channel::Channel(Fd socket, Fd wake, ssl_st* ssl, std::string where,
                 std::shared_ptr<TlsContext> context)
    : socket_(std::move(socket)),
      wake_(std::move(wake)),
      context_(std::move(context)),
      ssl_(ssl),
      where_(std::move(where)) {}

Channel::~Channel() { SSL_free(ssl_); }

Result<std::unique_ptr<Channel>> Channel::start(Fd socket, const std::string& where,
                                                std::shared_ptr<TlsContext> context,
                                                const ChannelOptions& options) {
  FERRY_TRY(prepare_socket(socket.get(), options.dead_after_ms));
  Fd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return sys_error("cannot make an eventfd for a connection", errno);
  const int fd = socket.get();
  SSL* ssl = SSL_new(context->native());
  BIO* bio = ssl != nullptr ? make_socket_bio(fd) : nullptr;
  if (bio == nullptr) {
    SSL_free(ssl);
    return make_error(Errc::failed, "no memory for a TLS connection");
  }
  SSL_set_bio(ssl, bio, bio);
  std::unique_ptr<Channel> channel(
      new Channel(std::move(socket), std::move(wake), ssl, where, std::move(context)));
  channel->peer_address_ = peer_address_of(fd);
  return channel;
}

Result<std::unique_ptr<Channel>> Channel::connect(const std::string& host, uint16_t port,
                                                  std::shared_ptr<TlsContext> context,
                                                  int timeout_ms, ChannelOptions options) {
  const Deadline deadline(timeout_ms);
  auto socket = dial(host, port, deadline);
  if (!socket.ok()) return std::move(socket).error();
  return connect_over(std::move(*socket), host, std::move(context), deadline.remaining_ms(),
                      options);
}

Result<std::unique_ptr<Channel>> Channel::connect_over(Fd socket, const std::string& host,
                                                       std::shared_ptr<TlsContext> context,
                                                       int timeout_ms, ChannelOptions options) {
  const Deadline deadline(timeout_ms);
  auto channel = start(std::move(socket), host, std::move(context), options);
  if (!channel.ok()) return channel;
  if (options.verify_name) FERRY_TRY((*channel)->verify_host(host));
  SSL_set_connect_state((*channel)->ssl_);
  FERRY_TRY((*channel)->handshake(deadline));
  FERRY_TRY((*channel)->exchange_hello(deadline));
  return channel;
}

Result<std::unique_ptr<Channel>> Channel::accept(Fd socket, std::shared_ptr<TlsContext> context,
                                                 int timeout_ms, ChannelOptions options) {
  const Deadline deadline(timeout_ms);
  const std::string where = peer_address_of(socket.get());
  auto channel = start(std::move(socket), where, std::move(context), options);
  if (!channel.ok()) return channel;
  SSL_set_accept_state((*channel)->ssl_);
  FERRY_TRY((*channel)->handshake(deadline));
  FERRY_TRY((*channel)->exchange_hello(deadline));
  return channel;
}

Status Channel::verify_host(const std::string& host) {
  int ok = 0;
  if (is_ip(host)) {
    ok = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_), host.c_str());
  } else {
    SSL_set_hostflags(ssl_, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    ok = SSL_set1_host(ssl_, host.c_str()) == 1 && SSL_set_tlsext_host_name(ssl_, host.c_str()) == 1;
  }
  if (ok == 1) return ok_status();
  return make_error(Errc::usage, "not a host name or address: " + host);
}

Status Channel::handshake(const Deadline& deadline) {
  for (;;) {
    int rc = 0, why = 0, sys = 0;
    {
      const std::lock_guard lock(ssl_mutex_);
      ERR_clear_error();
      errno = 0;
      rc = SSL_do_handshake(ssl_);
      sys = errno;
      why = SSL_get_error(ssl_, rc);
    }
    if (rc == 1) break;
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
      return tls_error("the TLS handshake", why, sys);
    FERRY_TRY(wait(why == SSL_ERROR_WANT_READ ? Wait::readable : Wait::writable, deadline));
  }
  shook_hands_ = true;
  if (X509* certificate = SSL_get0_peer_certificate(ssl_)) peer_name_ = name_of(certificate);
  return ok_status();
}

Status Channel::exchange_hello(const Deadline& deadline) {
  std::array<std::byte, kHeaderBytes> bytes{};
  encode_header(make_header(FrameType::hello, 0, kProtocolVersion, {}), bytes);
  // A peer that refuses our certificate may have closed before we write: its alert, the real
  // reason, is waiting to be read all the same.
  if (auto written = write_until(bytes.data(), bytes.size(), deadline); !written.ok()) {
    auto reason = read_until(bytes.data(), bytes.size(), deadline);
    const bool told = !reason.ok() && reason.error().code == Errc::peer_refused;
    return told ? std::move(reason).error() : std::move(written).error();
  }
  for (size_t have = 0; have < bytes.size();) {
    auto n = read_until(bytes.data() + have, bytes.size() - have, deadline);
    if (!n.ok()) return std::move(n).error();
    if (*n == 0)
      return make_error(Errc::peer_refused, where_ + " ended the connection without a hello");
    have += *n;
  }
  auto hello = parse_header(bytes);
  if (!hello.ok()) return std::move(hello).error();
  if (hello->type != FrameType::hello)
    return make_error(Errc::protocol, where_ + " did not begin with a hello");
  FERRY_TRY(check_payload(*hello, {}));
  if (hello->offset != kProtocolVersion)
    return make_error(Errc::peer_refused, where_ + " speaks protocol " +
                      std::to_string(hello->offset) + ", this host speaks protocol " +
                      std::to_string(kProtocolVersion), 0,
                      "install the same version of ferryd on both hosts");
  return ok_status();
}

Status Channel::wait(Wait what, const Deadline& deadline) {
  const short events = what == Wait::readable ? POLLIN : POLLOUT;
  std::array<pollfd, 2> waiters{{{socket_.get(), events, 0}, {wake_.get(), POLLIN, 0}}};
  int rc = 0;
  do {
    rc = poll(waiters.data(), waiters.size(), deadline.remaining_ms());
  } while (rc < 0 && errno == EINTR);
  if (aborted()) return aborted_error();
  if (rc < 0) return sys_error("cannot wait for " + where_, errno);
  if (rc == 0)
    return make_error(Errc::timeout, where_ + " did not answer in time", 0,
                      "is ferryd there alive, and is it ferryd that listens on this port?");
  return ok_status();
}

Result<size_t> Channel::read_until(void* data, size_t size_bytes, const Deadline& deadline) {
  if (size_bytes == 0) return size_t{0};
  for (;;) {
    if (aborted()) return aborted_error();
    int rc = 0, why = 0, sys = 0;
    size_t moved = 0;
    {
      const std::lock_guard lock(ssl_mutex_);
      ERR_clear_error();
      errno = 0;
      rc = SSL_read_ex(ssl_, data, size_bytes, &moved);
      sys = errno;
      why = SSL_get_error(ssl_, rc);
    }
    if (rc == 1) return moved;
    if (why == SSL_ERROR_ZERO_RETURN) return size_t{0};
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
      if (aborted()) return aborted_error();
      return tls_error("reading", why, sys);
    }
    FERRY_TRY(wait(why == SSL_ERROR_WANT_READ ? Wait::readable : Wait::writable, deadline));
  }
}

Result<size_t> Channel::read_some(void* data, size_t size_bytes) {
  return read_until(data, size_bytes, Deadline());
}

Status Channel::read_exact(void* data, size_t size_bytes) {
  auto* at = static_cast<std::byte*>(data);
  while (size_bytes > 0) {
    auto n = read_some(at, size_bytes);
    if (!n.ok()) return std::move(n).error();
    if (*n == 0)
      return make_error(Errc::protocol, where_ + " ended the connection in the middle of a message");
    at += *n;
    size_bytes -= *n;
  }
  return ok_status();
}

Status Channel::write_until(const void* data, size_t size_bytes, const Deadline& deadline) {
  const auto* at = static_cast<const std::byte*>(data);
  while (size_bytes > 0) {
    if (aborted()) return aborted_error();
    int rc = 0, why = 0, sys = 0;
    size_t moved = 0;
    {
      const std::lock_guard lock(ssl_mutex_);
      ERR_clear_error();
      errno = 0;
      rc = SSL_write_ex(ssl_, at, size_bytes, &moved);
      sys = errno;
      why = SSL_get_error(ssl_, rc);
    }
    if (rc == 1) {
      at += moved;
      size_bytes -= moved;
      continue;
    }
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
      if (aborted()) return aborted_error();
      return tls_error("writing", why, sys);
    }
    FERRY_TRY(wait(why == SSL_ERROR_WANT_READ ? Wait::readable : Wait::writable, deadline));
  }
  return ok_status();
}

Status Channel::write_all(const void* data, size_t size_bytes) {
  return write_until(data, size_bytes, Deadline());
}

Status Channel::write_all(std::span<const iovec> pieces) {
  // Small pieces (headers) share a record with the beginning of what follows; the bulk is handed
  // over from where it lies.
  std::array<std::byte, kRecordBytes> record;
  size_t filled = 0;
  for (const iovec& piece : pieces) {
    const auto* at = static_cast<const std::byte*>(piece.iov_base);
    size_t left = piece.iov_len;
    if (filled > 0 || left < kRecordBytes) {
      const size_t head = std::min(left, kRecordBytes - filled);
      std::memcpy(record.data() + filled, at, head);
      filled += head;
      at += head;
      left -= head;
    }
    if (filled == kRecordBytes) {
      FERRY_TRY(write_all(record.data(), std::exchange(filled, 0)));
    }
    if (left > 0) FERRY_TRY(write_all(at, left));
  }
  return filled > 0 ? write_all(record.data(), filled) : ok_status();
}

Result<Ready> Channel::wait_readable(int timeout_ms, int other_fd) {
  {
    const std::lock_guard lock(ssl_mutex_);
    if (SSL_has_pending(ssl_) == 1) return Ready::channel;
  }
  std::array<pollfd, 3> waiters{{{socket_.get(), POLLIN, 0},
                                 {wake_.get(), POLLIN, 0},
                                 {other_fd, POLLIN, 0}}};
  const Deadline deadline(timeout_ms);
  int rc = 0;
  do {
    rc = poll(waiters.data(), waiters.size(), deadline.remaining_ms());
  } while (rc < 0 && errno == EINTR);
  if (aborted()) return aborted_error();
  if (rc < 0) return sys_error("cannot wait for " + where_, errno);
  if (waiters[0].revents != 0) return Ready::channel;
  return waiters[2].revents != 0 ? Ready::other : Ready::timeout;
}

void Channel::drain(int timeout_ms) {
  const Deadline deadline(timeout_ms);
  std::vector<std::byte> scratch(64 * 1024);
  while (!deadline.passed()) {
    auto n = read_until(scratch.data(), scratch.size(), deadline);
    if (!n.ok() || *n == 0) return;
  }
}

Status Channel::finish(int timeout_ms) {
  const Deadline deadline(timeout_ms);
  for (;;) {
    if (aborted()) return aborted_error();
    int rc = 0, why = 0, sys = 0;
    {
      const std::lock_guard lock(ssl_mutex_);
      ERR_clear_error();
      errno = 0;
      rc = SSL_shutdown(ssl_);
      sys = errno;
      why = SSL_get_error(ssl_, rc);
    }
    // 0 means ours is sent and theirs has not come yet, which is all that is wanted here.
    if (rc >= 0) return ok_status();
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
      return tls_error("ending the connection", why, sys);
    FERRY_TRY(wait(why == SSL_ERROR_WANT_READ ? Wait::readable : Wait::writable, deadline));
  }
}

void Channel::abort() {
  if (aborted_.exchange(true)) return;
  const uint64_t one = 1;
  // The counter cannot overflow with one write, so the result carries no news.
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
  // The peer learns at once, even while this object lives on.
  ::shutdown(socket_.get(), SHUT_RDWR);
}

Error Channel::aborted_error() const {
  return make_error(Errc::aborted, "the connection with " + where_ + " was called off");
}

Error Channel::tls_error(const std::string& doing, int ssl_error, int sys) const {
  return explain_tls_error({where_, doing, shook_hands_, ssl_error, sys,
                            SSL_get_verify_result(ssl_), ERR_peek_error()});
}

std::string Channel::peer_host() const {
  auto host = peer_address_.substr(0, peer_address_.rfind(':'));
  if (host.size() > 1 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return host;
}

}  // namespace ferry::wire
