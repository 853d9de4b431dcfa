// One attempt's sending: numbers its chunks per owner, keeps its sums, sends its manifests, and knows when every owner
// has confirmed. Thread-safe; Send runs in slots and never waits for a peer.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "sabot/native/rows/partitioner.h"
#include "sabot/native/shuffle/bookkeeping.h"
#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/shuffle/peer_link.h"

namespace sabot::shuffle {

struct SendSummary {
  std::map<int32_t, PartitionCount> sums;  // taken at the partitioner's input; the bytes of what it made of it
  int64_t rows = 0;
  int64_t wire_bytes = 0;
  int64_t local_bytes = 0;
  uint64_t placement_digest = 0;  // of all rows, sent or not; 0 where it was not asked for
};

class AttemptSender : public DeliveryListener, public std::enable_shared_from_this<AttemptSender> {
 public:
  struct Options {
    std::string shuffle_id;
    uint64_t incarnation = 0;
    uint32_t epoch = 0;
    AttemptKey attempt;
    bool digest_placement = false;
    std::vector<std::string> owners;  // addresses; chunks for an owner beyond them are not sent
    int32_t my_owner = -1;            // index of this agent in owners; -1: it owns nothing
    Layout layout;
    std::shared_ptr<arrow::Schema> schema;  // may be null until the first rows
    bool checksums = true;                  // a guard: a benchmark switches it off to see its cost
  };
  using LinkTo = std::function<arrow::Result<std::shared_ptr<PeerLink>>(const std::string& address)>;

  /// `store` (this agent's, may be null where my_owner is -1) must outlive the sender.
  AttemptSender(Options options, ChunkStore* store, LinkTo link_to)
      : options_(std::move(options)), store_(store), link_to_(std::move(link_to)) {}

  /// Checksums the chunks and hands each to its owner's outbox, or to the store where the owner is this agent. Once a
  /// part of the rows has gone, a failure is the attempt's: what was sent cannot be taken back to be sent again.
  arrow::Status Send(const std::vector<rows::ScatteredChunk>& chunks);
  /// No more rows: sends a manifest to every owner.
  arrow::Status Finish();
  /// Waits for every owner's confirmation; false at the deadline. The first failure ends the wait.
  arrow::Result<bool> WaitConfirmed(Clock::time_point deadline);
  /// Ends the wait; chunks that owners hold stay unconfirmed and are never read.
  void Abort();

  SendSummary summary() const;
  /// Owners that have not confirmed, for a message at the deadline.
  std::vector<std::string> OwnersWaitedFor() const;

  void Acknowledged(const std::string& peer, const Ack& ack) override;
  void Undelivered(const std::string& peer, const arrow::Status& status) override;

 private:
  struct PerOwner {
    uint32_t chunks = 0;
    uint64_t marks = 0;
    std::map<int32_t, PartitionSum> sums;
    bool confirmed = false;
  };

  ChunkHeader NewHeader() const;
  arrow::Status SendChunk(const rows::ScatteredChunk& chunk);
  arrow::Status HandOver(const ChunkHeader& header, const rows::ScatteredChunk& chunk, bool local);
  arrow::Status SendManifests();
  void NoteFailure(const arrow::Status& status);
  PerOwner& OwnerLocked(int32_t owner);

  const Options options_;
  ChunkStore* const store_;
  const LinkTo link_to_;

  mutable std::mutex mutex_;  // guards all below; a leaf
  std::condition_variable changed_;
  std::vector<PerOwner> per_owner_;
  std::shared_ptr<arrow::Schema> schema_;
  SendSummary summary_;
  arrow::Status failure_;
  bool finished_ = false;
};

}  // namespace sabot::shuffle
