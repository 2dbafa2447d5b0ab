// SPDX-License-Identifier: GPL-2.0-or-later
// Frames as libvirt's client would send them, written out independently of the code under test.
// Test support only; no state.
#pragma once

#include <string_view>

#include "hypervisor/rpc_frame.h"

namespace ferry::hypervisor::test {

inline void put(FrameBytes& out, uint32_t value) {
  for (int shift : {24, 16, 8, 0}) out.push_back(static_cast<std::byte>(value >> shift));
}

inline void put_string(FrameBytes& out, std::string_view text) {
  put(out, static_cast<uint32_t>(text.size()));
  for (char c : text) out.push_back(static_cast<std::byte>(c));
  while (out.size() % 4 != 0) out.push_back(std::byte{0});
}

inline FrameBytes frame_of(uint32_t procedure, uint32_t serial, const FrameBytes& payload,
                           uint32_t type = 0, uint32_t status = 0,
                           uint32_t program = 0x20008086) {
  FrameBytes out;
  for (uint32_t word : {static_cast<uint32_t>(28 + payload.size()), program, 1u, procedure, type,
                        serial, status})
    put(out, word);
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

inline FrameBytes finish3_params_call(uint32_t serial, bool cancelled) {
  FrameBytes args;
  put(args, 3);  // three typed parameters
  put_string(args, "migrate_uri");
  put(args, 7);
  put_string(args, "tcp://192.0.2.7");
  put_string(args, "bandwidth");
  put(args, 4);
  put(args, 0);
  put(args, 100);
  put_string(args, "parallel.connections");
  put(args, 1);
  put(args, 2);
  put_string(args, "<qemu-migration/>");  // the cookie
  put(args, 0x1001);                      // flags
  put(args, cancelled ? 1 : 0);
  return frame_of(306, serial, args);
}

inline FrameBytes finish3_call(uint32_t serial, bool cancelled) {
  FrameBytes args;
  put_string(args, "web01");
  put_string(args, "<qemu-migration/>");
  put(args, 0);  // no dconnuri
  put(args, 1);
  put_string(args, "tcp://192.0.2.7");
  put(args, 0);
  put(args, 1);  // flags, 64 bits
  put(args, cancelled ? 1 : 0);
  return frame_of(217, serial, args);
}

inline FrameBytes finish2_call(uint32_t serial, int retcode) {
  FrameBytes args;
  put_string(args, "web01");
  put_string(args, "");
  put_string(args, "tcp://192.0.2.7");
  put(args, 0);
  put(args, 1);
  put(args, static_cast<uint32_t>(retcode));
  return frame_of(109, serial, args);
}

inline FrameBytes ping() { return frame_of(1, 0, {}, 2, 0, 0x6b656570); }
inline FrameBytes pong() { return frame_of(2, 0, {}, 2, 0, 0x6b656570); }

}  // namespace ferry::hypervisor::test
