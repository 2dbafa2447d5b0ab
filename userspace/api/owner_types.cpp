// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/owner_types.h"

#include "api/api_names.h"
#include "api/json_parts.h"

namespace ferry::api {
namespace {

constexpr Names<DiskOwner, 3> kDiskOwnerNames{{{DiskOwner::this_host, "this_host"},
                                               {DiskOwner::peer, "peer"},
                                               {DiskOwner::unknown, "unknown"}}};
constexpr Names<Presence, 3> kPresenceNames{{{Presence::present, "present"},
                                             {Presence::absent, "absent"},
                                             {Presence::replaced, "replaced"}}};

// Twice what a peer may send.
constexpr size_t kDefinitionBytesMax = 1024 * 1024;

void read_target(ObjectReader& in, OwnerTarget& target) {
  in.text("vm", target.vm, Need::optional, 255);
  in.text("path", target.path);
  if (!target.path.empty()) check_path(in, target.path);
}

void need_one(ObjectReader& in, const OwnerTarget& target) {
  if (in.ok() && target.vm.empty() == target.path.empty())
    in.join(make_error(Errc::usage, "exactly one of the fields path and vm must be given"));
}

void put_target(Json& out, const OwnerTarget& target) {
  if (!target.vm.empty()) out["vm"] = target.vm;
  if (!target.path.empty()) out["path"] = target.path;
}

Result<OwnedDisk> read_owned(const Json& json, std::string where) {
  ObjectReader in(json, std::move(where), Unknown::lenient);
  OwnedDisk disk;
  in.text("vm", disk.vm);
  in.text("target", disk.target);
  in.text("path", disk.path, Need::required);
  in.choice("role", disk.role, kRoleNames);
  in.number("size_bytes", disk.size_bytes);
  in.text("uuid", disk.uuid);
  in.number("generation", disk.generation);
  in.text("holding", disk.holding);
  in.choice("owner", disk.owner, kDiskOwnerNames);
  in.text("owner_host", disk.owner_host);
  in.text("owner_note", disk.owner_note);
  in.text("session", disk.session);
  in.choice("direction", disk.direction, kDirectionNames);
  in.text("peer", disk.peer);
  in.text("peer_host", disk.peer_host);
  read_time(in, "since", disk.since);
  in.text("reason", disk.reason);
  in.flag("verified", disk.verified);
  in.choice("volume", disk.volume, kPresenceNames);
  in.text("filter", disk.filter);
  in.flag("must_be_barred", disk.must_be_barred);
  in.flag("barred", disk.barred);
  return finish(in, std::move(disk));
}

}  // namespace

std::string_view name_of(DiskOwner value) { return look_up(value, kDiskOwnerNames); }
std::string_view name_of(Presence value) { return look_up(value, kPresenceNames); }

// ---- requests ----------------------------------------------------------------------------------

Result<OwnerTarget> decode_owner_query(const Json& json) {
  ObjectReader in(json, "", Unknown::strict);
  OwnerTarget target;
  read_target(in, target);
  if (in.ok() && !target.vm.empty() && !target.path.empty())
    in.join(make_error(Errc::usage, "only one of path and vm can be asked for"));
  return finish(in, std::move(target));
}

Result<OwnerTarget> decode_definition_query(const Json& json) {
  ObjectReader in(json, "", Unknown::strict);
  OwnerTarget target;
  read_target(in, target);
  need_one(in, target);
  return finish(in, std::move(target));
}

Result<ForceBody> decode_force(const Json& json) {
  ObjectReader in(json, "", Unknown::strict);
  ForceBody body;
  read_target(in, body.target);
  in.flag("peer_is_dead", body.peer_is_dead);
  need_one(in, body.target);
  return finish(in, std::move(body));
}

Result<ReleaseBody> decode_release(const Json& json) {
  ObjectReader in(json, "", Unknown::strict);
  ReleaseBody body;
  read_target(in, body.target);
  in.flag("unverified", body.unverified);
  need_one(in, body.target);
  return finish(in, std::move(body));
}

Json encode(const ForceBody& body) {
  Json out = Json::object();
  put_target(out, body.target);
  out["peer_is_dead"] = body.peer_is_dead;
  return out;
}

Json encode(const ReleaseBody& body) {
  Json out = Json::object();
  put_target(out, body.target);
  out["unverified"] = body.unverified;
  return out;
}

// ---- answers -----------------------------------------------------------------------------------

Json encode(const OwnedDisk& disk) {
  return Json{{"vm", disk.vm},
              {"target", disk.target},
              {"path", disk.path},
              {"role", name_of(disk.role)},
              {"size_bytes", disk.size_bytes},
              {"uuid", disk.uuid},
              {"generation", disk.generation},
              {"holding", disk.holding},
              {"owner", name_of(disk.owner)},
              {"owner_host", maybe(disk.owner_host)},
              {"owner_note", disk.owner_note},
              {"session", disk.session},
              {"direction", name_of(disk.direction)},
              {"peer", disk.peer},
              {"peer_host", disk.peer_host},
              {"since", maybe_time(disk.since)},
              {"reason", disk.reason},
              {"verified", disk.verified},
              {"volume", name_of(disk.volume)},
              {"filter", maybe(disk.filter)},
              {"must_be_barred", disk.must_be_barred},
              {"barred", maybe(disk.barred)}};
}

Json encode(const OwnerList& list) {
  return Json{{"host", list.host}, {"disks", encode_list(list.disks)}};
}

Json encode(const Definition& definition) {
  return Json{{"vm", definition.vm}, {"session", definition.session}, {"xml", definition.xml}};
}

Json encode(const Forced& forced) {
  return Json{{"vm", forced.vm},
              {"session", forced.session},
              {"paths", forced.paths},
              {"generation", maybe(forced.generation)},
              {"job", maybe(forced.job)}};
}

Json encode(const Released& released) {
  return Json{{"vm", released.vm}, {"paths", released.paths}};
}

Result<OwnerList> decode_owners(const Json& json) {
  ObjectReader in(json, "", Unknown::lenient);
  OwnerList list;
  in.text("host", list.host);
  read_list(in, "disks", list.disks, read_owned);
  return finish(in, std::move(list));
}

Result<Definition> decode_definition(const Json& json) {
  ObjectReader in(json, "", Unknown::lenient);
  Definition definition;
  in.text("vm", definition.vm);
  in.text("session", definition.session);
  in.text("xml", definition.xml, Need::required, kDefinitionBytesMax);
  return finish(in, std::move(definition));
}

Result<Forced> decode_forced(const Json& json) {
  ObjectReader in(json, "", Unknown::lenient);
  Forced forced;
  in.text("vm", forced.vm);
  in.text("session", forced.session);
  in.texts("paths", forced.paths);
  in.number("generation", forced.generation);
  in.text("job", forced.job);
  return finish(in, std::move(forced));
}

Result<Released> decode_released(const Json& json) {
  ObjectReader in(json, "", Unknown::lenient);
  Released released;
  in.text("vm", released.vm);
  in.texts("paths", released.paths);
  return finish(in, std::move(released));
}

}  // namespace ferry::api
