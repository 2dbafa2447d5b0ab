// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/destination_device.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "daemon/bars.h"
#include "daemon/incoming_guest.h"
#include "daemon/kept_copies.h"
#include "mover/digest.h"

namespace ferry::daemon {

using T = migration::DestinationEventType;

namespace {

// Longest wait for the guest's own writes in flight while differing blocks are told apart.
constexpr std::uint32_t kDrainTimeoutMs = 5'000;

migration::DestinationEvent failed(Error error) { return {T::failed, std::move(error)}; }

Error not_there(const DiskRequest& disk) {
  return make_error(Errc::not_found, fmt::format("no volume {} for {}", disk.path, disk.target), 0,
                    fmt::format("create it with {} bytes, or pass --create", disk.size_bytes));
}

// /dev/VG/LV → both names; nothing for other paths.
std::optional<std::pair<std::string, std::string>> lv_of(const std::string& path) {
  constexpr std::string_view kDev = "/dev/";
  if (path.rfind(kDev, 0) != 0) return std::nullopt;
  const auto slash = path.find('/', kDev.size());
  if (slash == std::string::npos || path.find('/', slash + 1) != std::string::npos) return std::nullopt;
  auto vg = path.substr(kDev.size(), slash - kDev.size());
  if (vg == "mapper" || vg == "disk" || vg == "block") return std::nullopt;
  return std::pair{vg, path.substr(slash + 1)};
}

Result<DiskReply> plan_disk(const DiskRequest& disk, bool create) {
  DiskReply reply{disk.index, disk.path, "use"};
  auto volume = volume::inspect(disk.path);
  if (!volume) {
    if (volume.error().code != Errc::not_found) return std::move(volume).error();
    if (!create || disk.role == "scratch") return not_there(disk);
    if (!lv_of(disk.path))
      return make_error(Errc::not_found, "no volume " + disk.path + ", and only logical volumes can be created", 0,
                        "create it by hand");
    reply.action = "create";
    return reply;
  }
  if (disk.role == "scratch") return reply;
  if (volume->in_use)
    return make_error(Errc::busy, "the volume " + disk.path + " is in use", 0,
                      "find out who has it open (lsof, dmsetup info, virsh list --all)");
  if (volume->size_bytes < disk.size_bytes)
    return make_error(Errc::size_mismatch, fmt::format("the volume {} has {} bytes, the source's disk {}", disk.path,
                                                       volume->size_bytes, disk.size_bytes),
                      0, "extend it with lvextend, or remove it and pass --create");
  if (volume->size_bytes > disk.size_bytes)
    return make_error(Errc::size_mismatch, fmt::format("the volume {} has {} bytes, the source's disk only {}",
                                                       disk.path, volume->size_bytes, disk.size_bytes),
                      0, "both must have the same size: remove it and pass --create");
  if (volume->logical_block_size > disk.logical_block_size)
    return make_error(Errc::unsupported, fmt::format("the volume {} has blocks of {} bytes, the source's disk of {}",
                                                     disk.path, volume->logical_block_size, disk.logical_block_size));
  return reply;
}

}  // namespace

Result<std::vector<DiskReply>> plan_destination(const PrepareRequest& request) {
  std::vector<DiskReply> replies;
  for (const auto& disk : request.disks) {
    auto reply = plan_disk(disk, request.create);
    if (!reply) return std::move(reply).error();
    replies.push_back(std::move(*reply));
  }
  return replies;
}

DestinationDisks::DestinationDisks(std::string session, PrepareRequest request, std::vector<store::DiskRecord> old_copies,
                                   const Config& config, Post post, CloseToGuests close_to_guests)
    : session_(std::move(session)), request_(std::move(request)), old_copies_(std::move(old_copies)), config_(config),
      post_(std::move(post)), close_to_guests_(std::move(close_to_guests)) {
  for (const auto& disk : request_.disks) {
    if (disk.role == "scratch") continue;
    auto& item = items_.emplace_back();
    item.request = disk;
    for (const auto& copy : old_copies_)
      if (copy.uuid == disk.uuid && copy.path == disk.path) item.old_copy = &copy;
    item.removable = item.old_copy && item.old_copy->created;
  }
}

DestinationDisks::~DestinationDisks() { stop_streams(); }

void DestinationDisks::prepare() {
  worker_.post([this] {
    if (auto done = prepare_all(); !done) {
      if (auto undone = clean(false); !undone) spdlog::error("taking back: {}", undone.error().message());
      return post_(failed(std::move(done).error()));
    }
    post_({T::prepared});
  });
}

Status DestinationDisks::prepare_all() {
  auto plan = plan_destination(request_);
  if (!plan) return std::move(plan).error();
  std::vector<mover::DiskTarget> targets;
  for (std::size_t n = 0, at = 0; n < plan->size(); ++n) {
    if (request_.disks[n].role == "scratch") continue;
    auto& item = items_[at++];
    FERRY_TRY(prepare_one(item, (*plan)[n]));
    (*plan)[n].base = item.base;
  }
  for (auto& item : items_)
    targets.push_back({item.request.index, item.attachment->door_fd(), item.attachment->size_bytes(), &*item.hashes});
  std::lock_guard lock(mutex_);
  for (auto& item : items_) trackers_[item.request.target] = filter::to_text(item.attachment->tracker().uuid());
  receiver_ = std::make_shared<mover::Receiver>(std::move(targets));
  reply_ = std::move(*plan);
  return ok_status();
}

Status DestinationDisks::prepare_one(Item& item, const DiskReply& plan) {
  if (plan.action == "create") {
    const auto lv = lv_of(item.request.path);
    auto made = volume::create_lv(lv->first, lv->second, item.request.size_bytes, session_);
    if (!made) return std::move(made).error();
    item.removable = true;
    item.old_copy = nullptr;  // it was there a moment ago
    if (made->size_bytes != item.request.size_bytes)
      return make_error(Errc::size_mismatch,
                        fmt::format("a logical volume of exactly {} bytes cannot be made in {} (it got {})",
                                    item.request.size_bytes, lv->first, made->size_bytes),
                        0, "give both volume groups the same extent size");
  }
  filter::AttachRequest request;
  request.path = item.request.path;
  request.mode = FERRY_MODE_GATE;
  request.map_memory_bytes = config_.map_memory_bytes();
  request.door_writable = true;
  request.replace_fenced = true;
  auto attached = filter::Attachment::attach(request);
  if (!attached) return std::move(attached).error();
  item.attachment.emplace(std::move(*attached));
  const std::uint64_t block = std::uint64_t{1} << mover::kHashBlockShift;
  auto hashes = mover::BlockHashes::create((item.request.size_bytes + block - 1) / block, mover::kHashBlockShift,
                                           config_.state_dir);
  if (!hashes) return std::move(hashes).error();
  item.hashes.emplace(std::move(*hashes));
  FERRY_TRY(judge_base(item));
  spdlog::info("{}: receiving, gate closed to the guest's writes; what is there of the disk: {}", item.request.path,
               base_name(item.base));
  return ok_status();
}

// What a volume holds is believed only after a look at all of it: it may have been written behind our back while
// the module was not there. The look fills the hashes besides, for blocks that never travel.
Status DestinationDisks::judge_base(Item& item) {
  const auto* copy = item.old_copy;
  if (!copy) return ok_status();
  item.base = Base::some;
  const bool same = item.request.changes_since != 0 && copy->generation == item.request.changes_since;
  if (!same || copy->digest.empty()) return ok_status();
  FERRY_TRY(mover::fill_hashes(item.attachment->door_fd(), item.attachment->size_bytes(), *item.hashes, {},
                               stop_.get_token()));
  if (item.hashes->digest().hex() == copy->digest)
    item.base = Base::exact;
  else
    spdlog::warn("{} is not what it was when its disk was given away: both copies are compared", item.request.path);
  return ok_status();
}

std::set<std::string> DestinationDisks::kept() {
  std::lock_guard lock(mutex_);
  if (kept_) return *kept_;
  kept_.emplace();
  const bool something = receiver_ && receiver_->received_bytes() > 0;
  // A volume that this session has not filled may be anybody's, and was perhaps not even touched.
  for (const auto& item : items_)
    if (request_.keep_s > 0 && (something || item.old_copy)) kept_->insert(item.request.target);
  return *kept_;
}

void DestinationDisks::keep_nothing() {
  std::lock_guard lock(mutex_);
  if (!kept_) kept_.emplace();
}

void DestinationDisks::cut_short() {
  std::lock_guard lock(mutex_);
  stop_.request_stop();
}

void DestinationDisks::close_gate() {
  worker_.post([this] {
    for (auto& item : items_)
      if (auto closed = item.attachment->tracker().close_gate(); !closed)
        spdlog::warn("{}: {}", item.request.path, closed.error().message());
  });
}

void DestinationDisks::flush() {
  worker_.post([this] {
    std::shared_ptr<mover::Receiver> receiver;
    {
      std::lock_guard lock(mutex_);
      receiver = receiver_;
    }
    if (auto done = receiver->flush(); !done) return post_(failed(std::move(done).error()));
    post_({T::flushed});
  });
}

void DestinationDisks::open_gate() {
  worker_.post([this] {
    for (auto& item : items_) {
      if (auto opened = item.attachment->tracker().open_gate(); !opened)
        return post_(failed(std::move(opened).error()));
      item.attachment->drop_cached();
    }
    post_({T::opened});
  });
}

void DestinationDisks::yield() {
  worker_.post([this] {
    if (auto done = yield_all(); !done) return post_(failed(std::move(done).error()));
    post_({T::yielded});
  });
}

// The guest's memory is on the source. Only if nobody has written here since can it go on there.
Status DestinationDisks::yield_all() {
  FERRY_TRY(end_incoming_guest(config_, request_.vm, request_.definition));
  std::optional<Error> refused;
  for (auto& item : items_) {
    auto& tracker = item.attachment->tracker();
    // Waits for writes under way; one that comes later is held, and fails when the fence is up.
    if (auto frozen = tracker.freeze(kDrainTimeoutMs, kDrainTimeoutMs); !frozen) refused = std::move(frozen).error();
    auto info = tracker.info();
    if (!refused && !info) refused = std::move(info).error();
    if (!refused && (info->invalid() || info->dirty > 0 || item.written))
      refused = make_error(Errc::busy, item.request.path + " was written here since it was taken over", 0,
                           "start the VM on this host: its newest data are here");
    if (!refused)
      if (auto fenced = tracker.fence(); !fenced) refused = std::move(fenced).error();
    if (refused) break;
  }
  if (!refused) {
    keep_nothing();  // a whole copy, but an old one: its record says whose the disk is, not until when
    return ok_status();
  }
  for (auto& item : items_) {
    auto& tracker = item.attachment->tracker();
    (void)tracker.unfence();  // whichever of the two it is in
    (void)tracker.thaw();
  }
  return *refused;
}

void DestinationDisks::verify() {
  worker_.post([this] {
    // Asked again, since the answer was lost: the maps that explain the guest's own writes were used up the first time.
    if (digests().empty() && !verify_failed_) verify_all();
    post_(verify_failed_ ? failed(*verify_failed_) : migration::DestinationEvent{T::verified});
  });
}

void DestinationDisks::verify_all() {
  std::vector<DiskDigest> digests;
  for (auto& item : items_) {
    auto digest = verify_one(item);
    if (!digest) {
      verify_failed_ = std::move(digest).error();
      return;
    }
    digests.push_back(std::move(*digest));
  }
  std::lock_guard lock(mutex_);
  digests_ = std::move(digests);
}

// The guest is running on the disk while it is read, so a block may rightly differ from what was received:
// then the guest wrote it, and the filter has seen that.
Result<DiskDigest> DestinationDisks::verify_one(Item& item) {
  DiskDigest digest;
  digest.index = item.request.index;
  auto differing = mover::find_mismatches(item.attachment->door_fd(), item.attachment->size_bytes(), *item.hashes, {},
                                          stop_.get_token());
  if (!differing) return std::move(differing).error();
  auto wrong = unexplained(item, *differing);
  if (!wrong) return std::move(wrong).error();
  digest.mismatches = *wrong;
  digest.digest = item.hashes->digest().hex();
  spdlog::info("{}: digest {}, {} blocks written by the guest since, {} wrong", item.request.path, digest.digest,
               differing->size() - *wrong, *wrong);
  return digest;
}

Result<std::uint64_t> DestinationDisks::unexplained(Item& item, const std::vector<std::uint64_t>& differing) {
  if (differing.empty()) return 0;
  auto& tracker = item.attachment->tracker();
  // Once per session, so the map need not be released for a further round.
  // A write is marked when it completes. The freeze waits for those under way, for the blink of an eye.
  FERRY_TRY(tracker.freeze(kDrainTimeoutMs, kDrainTimeoutMs));
  auto map = tracker.swap();
  auto thawed = tracker.thaw();
  if (!map) return std::move(map).error();
  item.written = map->dirty() > 0;
  if (!thawed) return std::move(thawed).error();
  const auto shift = map->block_shift() - mover::kHashBlockShift;
  std::uint64_t wrong = 0;
  for (const auto block : differing)
    if (!map->test(block >> shift)) ++wrong;
  return wrong;
}

void DestinationDisks::finish() {
  worker_.post([this] {
    if (auto done = clean(true); !done) return post_(failed(std::move(done).error()));
    post_({T::cleaned});
  });
}

void DestinationDisks::discard() {
  const bool may_be_here = close_to_guests_();
  worker_.post([this, may_be_here] {
    // libvirt ends it by itself when its client is gone, but nobody says when; until then the volumes are in use.
    if (may_be_here)
      if (auto gone = end_incoming_guest(config_, request_.vm, request_.definition); !gone)
        spdlog::warn("{}: {}", session_, gone.error().message());
    if (auto done = clean(false); !done) return post_(failed(std::move(done).error()));
    post_({T::cleaned});
  });
}

// As the volume was before: plain, or fenced if an earlier migration took its VM elsewhere; fenced, too, if the copy
// is kept. The gate becomes the fence, so that there is no instant in between.
Status DestinationDisks::put_back(Item& item, bool kept) {
  auto& tracker = item.attachment->tracker();
  auto info = tracker.info();
  if (!info) return std::move(info).error();
  const bool fenced = info->state == FERRY_STATE_FENCED;  // it was given back
  if (!kept && !fenced && !item.attachment->replaced_fence()) return item.attachment->detach();
  if (!fenced) FERRY_TRY(tracker.fence());
  return item.attachment->leave();
}

// For the way back: what the guest writes from its first moment here is all that will have to travel.
Status DestinationDisks::go_on_tracking(Item& item) {
  const auto info = item.attachment->tracker().info();
  const bool open = info && info->state == FERRY_STATE_TRACKING;  // its gate may have refused to open
  return open && item.attachment->intact() ? item.attachment->leave() : item.attachment->detach();
}

// The guest runs on it: nothing may take it for what some migration left behind.
void DestinationDisks::forget_made_for(const Item& item) {
  const auto lv = volume::find_lv(item.request.path);
  if (!lv && lv.error().code == Errc::usage) return;  // no logical volume
  auto done = lv ? volume::forget_made_for(*lv) : Status(lv.error());
  if (!done) spdlog::warn("{}: {}", session_, done.error().message());
}

// A volume that was made for the disk, with this session's filter or not yet.
Status DestinationDisks::remove(Item& item) {
  if (item.attachment) FERRY_TRY(item.attachment->leave());
  item.attachment.reset();
  FERRY_TRY(item.old_copy ? remove_copy(*item.old_copy) : remove_closed(item.request.path));
  item.removable = false;
  return ok_status();
}

Status DestinationDisks::clean(bool keep) {
  const auto kept_ones = kept();
  stop_streams();
  std::optional<Error> first;
  auto note = [&first](const Item& item, Error error) {
    spdlog::error("{}: {}", item.request.path, error.message());
    if (!first) first = std::move(error);
  };
  for (auto& item : items_) {
    const bool kept = kept_ones.contains(item.request.target);
    const bool goes = !keep && item.removable && !kept;
    Status done = ok_status();
    if (goes)
      done = remove(item);
    else if (item.attachment)
      done = keep ? go_on_tracking(item) : put_back(item, kept);
    if (!done) note(item, std::move(done).error());
    else item.attachment.reset();
    if (keep) forget_made_for(item);
    item.hashes.reset();  // the job is remembered for long, and they take room in the state directory
  }
  if (first) return *first;
  return ok_status();
}

Status DestinationDisks::serve(wire::Channel& stream) {
  std::shared_ptr<mover::Receiver> receiver;
  std::stop_token token;
  {
    std::lock_guard lock(mutex_);
    receiver = receiver_;
    token = stop_.get_token();
  }
  if (!receiver) return make_error(Errc::protocol, "a data stream came before the volumes were prepared");
  return receiver->serve(stream, token);
}

void DestinationDisks::stop_streams() {
  std::shared_ptr<mover::Receiver> receiver;
  {
    std::lock_guard lock(mutex_);
    stop_.request_stop();
    receiver = std::exchange(receiver_, nullptr);
  }
  if (receiver) receiver->wait_idle();  // the doors are closed next: nobody may be writing through them
}

std::vector<DiskReply> DestinationDisks::reply() const {
  std::lock_guard lock(mutex_);
  return reply_;
}

std::map<std::string, std::string> DestinationDisks::trackers() const {
  std::lock_guard lock(mutex_);
  return trackers_;
}

std::vector<DiskDigest> DestinationDisks::digests() const {
  std::lock_guard lock(mutex_);
  return digests_;
}

}  // namespace ferry::daemon
