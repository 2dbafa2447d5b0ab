// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/owner_desk.h"

#include "daemon/kept_copies.h"
#include "migration/ownership.h"

namespace ferry::daemon {

using migration::GrantFate;

namespace {

Result<GrantFate> settle(store::OwnershipStore& store, const std::string& session, const OwnerQuestion& question) {
  std::vector<store::DiskRecord> disks;
  for (const auto& uuid : question.uuids) {
    auto disk = store.by_uuid(uuid);
    if (!disk) return std::move(disk).error();
    if (!*disk) return GrantFate::unknown;
    disks.push_back(std::move(**disk));
  }
  const auto fate = migration::fate_of(disks, session, question.generation);
  if (fate != GrantFate::open) return fate;
  auto known = store.session(session);
  if (!known) return std::move(known).error();
  if (!*known) return GrantFate::unknown;
  for (auto& disk : disks) {
    disk.holding = store::Holding::revoked;
    disk.reason = "the source took its grant back";
  }
  FERRY_TRY(store.put(**known, disks));
  return GrantFate::revoked;
}

}  // namespace

Json answer_from_records(store::OwnershipStore& store, const std::string& session, const Json& message) {
  const auto type = type_of(message);
  if (type == "finish") return plain_message("finished");
  if (type == "discard") return answer_discard(store, message);
  if (type != "revoke" && type != "return")
    return to_json(make_error(Errc::not_found, "this host has no session " + session + " under way"));
  auto question = owner_question_from(message, type);
  if (!question) return to_json(question.error());
  auto fate = settle(store, session, *question);
  if (!fate) return to_json(fate.error());
  // Whether the guest has written cannot be told without the session (a restart, patience over): what was opened stays.
  if (type == "return" && *fate == GrantFate::opened)
    return to_json(make_error(Errc::busy, "the session has ended here: nobody can tell any more whether the disks were written",
                              0, "start the VM on the destination"));
  return plain_message(migration::fate_name(*fate));
}

}  // namespace ferry::daemon
