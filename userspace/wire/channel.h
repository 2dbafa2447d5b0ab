// SPDX-License-Identifier: GPL-2.0-or-later
// Channel: one TLS connection to a peer, mutually authenticated, both sides of one protocol version.
// Owns its socket. Thread-safety: ONE reader thread (read_*, wait_readable, drain) and ONE writer
// thread (write_all, finish) at the same time; abort() from any thread wakes both for good.
// A link that is cut is noticed within ChannelOptions::dead_after_ms.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "wire/tls_context.h"

struct ssl_st;

namespace ferry::wire {

class Deadline;

struct ChannelOptions {
  // How long the peer's kernel may stay silent (keepalive, unacknowledged data) until the
  // connection counts as lost.
  int dead_after_ms = 15000;
  // Has the peer's certificate to name the host we dialled? Off only when the admin said so.
  bool verify_name = true;
};

// What wait_readable() saw.
enum class Ready { channel, other, timeout };

class Channel {
 public:
  // Dials, proves both certificates, and exchanges hello frames: with TLS 1.3 only the peer's first
  // frame tells a client that its own certificate was accepted. `timeout_ms` covers all of it.
  static Result<std::unique_ptr<Channel>> connect(const std::string& host, uint16_t port,
                                                  std::shared_ptr<TlsContext> context,
                                                  int timeout_ms, ChannelOptions options = {});
  static Result<std::unique_ptr<Channel>> accept(Fd socket, std::shared_ptr<TlsContext> context,
                                                 int timeout_ms, ChannelOptions options = {});
  // The client's half over a socket that is already connected to `host`.
  static Result<std::unique_ptr<Channel>> connect_over(Fd socket, const std::string& host,
                                                       std::shared_ptr<TlsContext> context,
                                                       int timeout_ms, ChannelOptions options = {});
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Fills the buffer or fails; an orderly end in the way is an error here.
  Status read_exact(void* data, size_t size_bytes);
  // At least one byte, or 0 when the peer has ended its direction orderly.
  Result<size_t> read_some(void* data, size_t size_bytes);
  // Waits until a read has something to do, `other_fd` is readable (-1: none), or the time is over
  // (-1: never). The channel wins when both are ready.
  Result<Ready> wait_readable(int timeout_ms, int other_fd = -1);
  // Reads and forgets until the peer ends or the time is over: lets a last word of ours arrive
  // before the socket closes over unread data.
  void drain(int timeout_ms);

  Status write_all(const void* data, size_t size_bytes);
  Status write_all(std::span<const iovec> pieces);
  // Ends our direction orderly; the peer reads 0 after everything written before.
  Status finish(int timeout_ms = 5000);

  void abort();
  bool aborted() const { return aborted_.load(); }

  // The name in the peer's certificate, and where it is connected from or to.
  const std::string& peer_name() const { return peer_name_; }
  const std::string& peer_address() const { return peer_address_; }
  // The same without the port and the brackets.
  std::string peer_host() const;

 private:
  enum class Wait { readable, writable };
  Channel(Fd socket, Fd wake, ssl_st* ssl, std::string where, std::shared_ptr<TlsContext> context);
  static Result<std::unique_ptr<Channel>> start(Fd socket, const std::string& where,
                                                std::shared_ptr<TlsContext> context,
                                                const ChannelOptions& options);
  Status verify_host(const std::string& host);
  Status handshake(const Deadline& deadline);
  Status exchange_hello(const Deadline& deadline);
  Status write_until(const void* data, size_t size_bytes, const Deadline& deadline);
  Result<size_t> read_until(void* data, size_t size_bytes, const Deadline& deadline);
  Status wait(Wait what, const Deadline& deadline);
  Error tls_error(const std::string& doing, int ssl_error, int sys) const;
  Error aborted_error() const;

  Fd socket_;
  Fd wake_;  // eventfd, stays readable once abort() was called
  std::shared_ptr<TlsContext> context_;
  std::mutex ssl_mutex_;  // held around single OpenSSL calls, never while waiting
  ssl_st* ssl_;
  std::atomic<bool> aborted_{false};
  bool shook_hands_ = false;
  std::string where_;  // for messages: "hostb:7391"
  std::string peer_name_;
  std::string peer_address_;
};

}  // namespace ferry::wire
