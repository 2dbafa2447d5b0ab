// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/messages.h"

#include <array>
#include <limits>
#include <type_traits>

#include "api/api_types.h"
#include "filter/uuid.h"

namespace ferry::daemon {
namespace {

constexpr std::array<std::pair<Purpose, std::string_view>, 5> kPurposes{{{Purpose::control, "control"},
                                                                         {Purpose::data, "data"},
                                                                         {Purpose::libvirt, "libvirt"},
                                                                         {Purpose::probe, "probe"},
                                                                         {Purpose::owner, "owner"}}};

constexpr std::array<std::pair<Base, std::string_view>, 3> kBases{{{Base::none, "none"},
                                                                   {Base::some, "some"},
                                                                   {Base::exact, "exact"}}};

std::string_view name_in(const auto& table, auto wanted) {
  for (const auto& [value, name] : table)
    if (value == wanted) return name;
  return "?";
}

template <typename Value, std::size_t N>
std::optional<Value> value_in(const std::array<std::pair<Value, std::string_view>, N>& table, std::string_view wanted) {
  for (const auto& [value, name] : table)
    if (name == wanted) return value;
  return std::nullopt;
}

Error malformed(std::string_view type, const std::string& what) {
  return make_error(Errc::protocol, "the peer's \"" + std::string(type) + "\" message " + what, 0,
                    "both hosts must run the same version of Ferry");
}

// Reads fields of one message; remembers the first fault and says it in done().
class Reader {
 public:
  Reader(const Json& json, std::string_view type) : json_(json), type_(type) {
    if (!json.is_object()) fault("is not an object");
  }
  void read(const char* name, std::string& out, std::size_t limit = kMaxTextLength) {
    const Json* v = find(name);
    if (!v) return;
    if (!v->is_string() || v->get_ref<const std::string&>().size() > limit)
      return fault(std::string("has no proper text in ") + name);
    out = v->get<std::string>();
  }
  void read(const char* name, bool& out) {
    const Json* v = find(name);
    if (!v) return;
    if (!v->is_boolean()) return fault(std::string("has no truth value in ") + name);
    out = v->get<bool>();
  }
  template <typename T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  void read(const char* name, T& out) {
    const Json* v = find(name);
    if (!v) return;
    if (!v->is_number_unsigned() || v->get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
      return fault(std::string("has no proper number in ") + name);
    out = static_cast<T>(v->get<std::uint64_t>());
  }
  template <typename F>
  void each(const char* name, std::size_t limit, F read_item) {
    const Json* v = find(name);
    if (!v) return;
    if (!v->is_array() || v->size() > limit) return fault(std::string("has no proper list in ") + name);
    for (const auto& item : *v) {
      Reader inner(item, type_);
      if (!inner.error_) read_item(inner);
      if (inner.error_ && !error_) error_ = std::move(inner.error_);
    }
  }
  void fault(const std::string& what) {
    if (!error_) error_ = malformed(type_, what);
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  const Json* find(const char* name) {
    if (error_) return nullptr;
    const auto at = json_.find(name);
    if (at == json_.end()) {
      fault(std::string("lacks ") + name);
      return nullptr;
    }
    return &*at;
  }
  const Json& json_;
  std::string_view type_;
  std::optional<Error> error_;
};

std::optional<Error> wrong_type(const Json& json, std::string_view expected) {
  const auto type = type_of(json);
  if (type == expected) return std::nullopt;
  if (type == "error") return error_from(json);
  return make_error(Errc::protocol, "the peer sent \"" + type.substr(0, 40) + "\" where \"" +
                                        std::string(expected) + "\" was due");
}

}  // namespace

std::string_view purpose_name(Purpose purpose) { return name_in(kPurposes, purpose); }

std::string_view base_name(Base base) { return name_in(kBases, base); }

Json plain_message(std::string_view type) { return {{"type", type}}; }

Json abort_message(bool discard) { return {{"type", "abort"}, {"discard", discard}}; }

bool discards(const Json& abort) {
  const auto at = abort.find("discard");
  return at != abort.end() && at->is_boolean() && at->get<bool>();
}

Json to_json(const OwnerQuestion& m) {
  Json disks = Json::array();
  for (const auto& uuid : m.uuids) disks.push_back({{"uuid", uuid}});
  return {{"type", m.type}, {"generation", m.generation}, {"disks", disks}};
}

Json to_json(const Hello& m) {
  return {{"type", "hello"}, {"protocol", m.protocol}, {"version", m.version}, {"host", m.host},
          {"purpose", purpose_name(m.purpose)}, {"session", m.session}};
}

Json to_json(const Welcome& m) {
  return {{"type", "welcome"}, {"protocol", m.protocol}, {"version", m.version}, {"host", m.host}};
}

Json to_json(const PrepareRequest& m) {
  Json disks = Json::array();
  for (const auto& d : m.disks)
    disks.push_back({{"index", d.index}, {"target", d.target}, {"path", d.path}, {"role", d.role},
                     {"size_bytes", d.size_bytes}, {"logical_block_size", d.logical_block_size}, {"uuid", d.uuid},
                     {"changes_since", d.changes_since}});
  return {{"type", "prepare"},          {"vm", m.vm},           {"create", m.create},       {"dry_run", m.dry_run},
          {"definition", m.definition}, {"generation", m.generation}, {"peer_port", m.peer_port}, {"streams", m.streams},
          {"keep_s", m.keep_s},         {"disks", disks}};
}

Json to_json(const PrepareReply& m) {
  Json disks = Json::array();
  for (const auto& d : m.disks)
    disks.push_back({{"index", d.index}, {"path", d.path}, {"action", d.action}, {"base", base_name(d.base)}});
  return {{"type", "prepared"}, {"disks", disks}, {"memory_address", m.memory_address}};
}

Json to_json(const std::vector<DiskDigest>& digests) {
  Json disks = Json::array();
  for (const auto& d : digests)
    disks.push_back({{"index", d.index}, {"digest", d.digest}, {"mismatches", d.mismatches}});
  return {{"type", "digests"}, {"disks", disks}};
}

Json to_json(const Error& e) {
  return {{"type", "error"}, {"code", errc_name(e.code)}, {"message", e.what}, {"errno", e.sys}, {"hint", e.hint}};
}

Result<Hello> hello_from(const Json& json) {
  if (auto wrong = wrong_type(json, "hello")) return *wrong;
  Hello m;
  std::string purpose;
  Reader r(json, "hello");
  r.read("protocol", m.protocol);
  r.read("version", m.version);
  r.read("host", m.host);
  r.read("purpose", purpose);
  r.read("session", m.session);
  if (r.error()) return *r.error();
  const auto known = value_in(kPurposes, purpose);
  if (!known) return malformed("hello", "names an unknown purpose");
  m.purpose = *known;
  return m;
}

Result<Welcome> welcome_from(const Json& json) {
  if (auto wrong = wrong_type(json, "welcome")) return *wrong;
  Welcome m;
  Reader r(json, "welcome");
  r.read("protocol", m.protocol);
  r.read("version", m.version);
  r.read("host", m.host);
  if (r.error()) return *r.error();
  return m;
}

Result<PrepareRequest> prepare_request_from(const Json& json) {
  if (auto wrong = wrong_type(json, "prepare")) return *wrong;
  PrepareRequest m;
  Reader r(json, "prepare");
  r.read("vm", m.vm);
  r.read("create", m.create);
  r.read("dry_run", m.dry_run);
  r.read("definition", m.definition, kMaxDefinitionLength);
  r.read("generation", m.generation);
  r.read("peer_port", m.peer_port);
  r.read("streams", m.streams);
  r.read("keep_s", m.keep_s);
  r.each("disks", kMaxDisks, [&m](Reader& disk) {
    DiskRequest d;
    disk.read("index", d.index);
    disk.read("target", d.target);
    disk.read("path", d.path);
    disk.read("role", d.role);
    disk.read("size_bytes", d.size_bytes);
    disk.read("logical_block_size", d.logical_block_size);
    disk.read("uuid", d.uuid);
    disk.read("changes_since", d.changes_since);
    if (d.role != "scratch" && !filter::parse_uuid(d.uuid)) disk.fault("names a disk without a proper uuid");
    if (d.path.empty() || d.path.front() != '/') disk.fault("names a volume without an absolute path");
    if (d.index != m.disks.size()) disk.fault("does not number its disks 0, 1, 2 …");
    if (d.role != "data" && d.role != "swap" && d.role != "scratch") disk.fault("gives a disk an unknown role");
    m.disks.push_back(std::move(d));
  });
  if (!r.error() && (m.peer_port < 1 || m.peer_port > 65535)) r.fault("has no proper number in peer_port");
  if (!r.error() && m.keep_s > api::kTimeoutSMax) r.fault("has no proper number in keep_s");
  if (!r.error() && (m.streams < 1 || m.streams > api::kStreamsMax)) r.fault("asks for an impossible number of streams");
  if (r.error()) return *r.error();
  return m;
}

Result<PrepareReply> prepare_reply_from(const Json& json) {
  if (auto wrong = wrong_type(json, "prepared")) return *wrong;
  PrepareReply m;
  Reader r(json, "prepared");
  r.read("memory_address", m.memory_address);
  r.each("disks", kMaxDisks, [&m](Reader& disk) {
    DiskReply d;
    disk.read("index", d.index);
    disk.read("path", d.path);
    disk.read("action", d.action);
    std::string base;
    disk.read("base", base);
    const auto known = value_in(kBases, base);
    if (!known) disk.fault("says something unknown of what it has of a disk");
    d.base = known.value_or(Base::none);
    m.disks.push_back(std::move(d));
  });
  if (r.error()) return *r.error();
  return m;
}

Result<std::vector<DiskDigest>> digests_from(const Json& json) {
  if (auto wrong = wrong_type(json, "digests")) return *wrong;
  std::vector<DiskDigest> digests;
  Reader r(json, "digests");
  r.each("disks", kMaxDisks, [&digests](Reader& disk) {
    DiskDigest d;
    disk.read("index", d.index);
    disk.read("digest", d.digest);
    disk.read("mismatches", d.mismatches);
    digests.push_back(std::move(d));
  });
  if (r.error()) return *r.error();
  return digests;
}

Error error_from(const Json& json) {
  std::string code, message, hint;
  unsigned sys = 0;
  Reader r(json, "error");
  r.read("code", code);
  r.read("message", message);
  r.read("errno", sys);
  r.read("hint", hint);
  if (r.error()) return *r.error();
  return make_error(errc_from_name(code).value_or(Errc::failed), message, static_cast<int>(sys), hint);
}

Result<OwnerQuestion> owner_question_from(const Json& json, std::string_view type) {
  if (auto wrong = wrong_type(json, type)) return *wrong;
  OwnerQuestion m;
  m.type = type;
  Reader r(json, type);
  r.read("generation", m.generation);
  r.each("disks", kMaxDisks, [&m](Reader& disk) {
    std::string uuid;
    disk.read("uuid", uuid);
    if (!filter::parse_uuid(uuid)) disk.fault("names a disk without a proper uuid");
    m.uuids.push_back(std::move(uuid));
  });
  if (r.error()) return *r.error();
  return m;
}

}  // namespace ferry::daemon
