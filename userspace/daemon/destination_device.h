// SPDX-License-Identifier: GPL-2.0-or-later
// DestinationDisks: the volumes that take a VM's disks in. Prepares or creates them, keeps the guest away
// with the gate, receives, verifies, and takes back everything if the migration is called off.
// Implements the brain's DestinationDevice on a worker thread; answers go to `post`.
// Thread-safety: the port's methods from the control loop; serve() and the getters from any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/messages.h"
#include "filter/attachment.h"
#include "migration/destination.h"
#include "mover/block_hashes.h"
#include "mover/receiver.h"
#include "store/disk_record.h"
#include "volume/volume.h"

namespace ferry::daemon {

// What would be done with each disk; an error when one cannot be taken in. Changes nothing.
Result<std::vector<DiskReply>> plan_destination(const PrepareRequest& request);

class DestinationDisks : public migration::DestinationDevice {
 public:
  using Post = std::function<void(migration::DestinationEvent)>;
  // From now on the source's libvirt can start no guest here. True when it could, so that one may be here. Called on the
  // control loop.
  using CloseToGuests = std::function<bool()>;

  // `session`: its id, which stays with the volumes that are made. `old_copies`: what is on record of volumes here that
  // hold an older or incomplete copy of one of the disks.
  DestinationDisks(std::string session, PrepareRequest request, std::vector<store::DiskRecord> old_copies,
                   const Config& config, Post post, CloseToGuests close_to_guests);
  ~DestinationDisks() override;

  void prepare() override;
  void cut_short() override;
  void close_gate() override;
  void flush() override;
  void open_gate() override;
  void verify() override;
  void yield() override;
  void finish() override;
  void discard() override;

  // The disks, by target, whose copy is kept if the migration is called off: all of them once something was copied,
  // else those that were here before. The first answer stands. Not while prepare() is under way. Any thread.
  std::set<std::string> kept();
  // Nothing is kept, whatever was asked for; unless kept() has said otherwise already.
  void keep_nothing();

  // Takes one data stream until it ends; in the stream's own thread. Only once prepared.
  Status serve(wire::Channel& stream);
  // Makes serve() return and lets no other begin.
  void stop_streams();

  std::vector<DiskReply> reply() const;           // valid once prepared
  std::vector<DiskDigest> digests() const;        // valid once verified
  std::map<std::string, std::string> trackers() const;  // of each filter, by target; valid once prepared

 private:
  struct Item {
    DiskRequest request;
    const store::DiskRecord* old_copy = nullptr;
    bool removable = false;  // made for this migration, now or in an earlier attempt
    Base base = Base::none;
    std::optional<filter::Attachment> attachment;
    std::optional<mover::BlockHashes> hashes;
    bool written = false;    // by the guest, as a map told that has been taken out of the filter since
  };

  Status prepare_all();
  Status prepare_one(Item& item, const DiskReply& plan);
  Status judge_base(Item& item);
  Status clean(bool keep);
  Status put_back(Item& item, bool kept);
  void forget_made_for(const Item& item);
  Status remove(Item& item);
  Status go_on_tracking(Item& item);
  Status yield_all();
  void verify_all();
  Result<DiskDigest> verify_one(Item& item);
  Result<std::uint64_t> unexplained(Item& item, const std::vector<std::uint64_t>& differing);

  const std::string session_;
  PrepareRequest request_;
  const std::vector<store::DiskRecord> old_copies_;
  const Config& config_;
  Post post_;
  CloseToGuests close_to_guests_;
  std::optional<Error> verify_failed_;        // worker only
  std::vector<Item> items_;                   // disks that are copied; changed by the worker only
  mutable std::mutex mutex_;                  // guards what follows
  std::shared_ptr<mover::Receiver> receiver_;
  std::vector<DiskReply> reply_;
  std::vector<DiskDigest> digests_;
  std::map<std::string, std::string> trackers_;
  std::optional<std::set<std::string>> kept_;  // decided
  std::stop_source stop_;
  Worker worker_;
};

}  // namespace ferry::daemon
