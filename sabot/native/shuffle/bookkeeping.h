// The bookkeeping of one shuffle at one owner: which chunks and manifests are in, and whether they fit. A state machine
// without I/O, clock, lock or rows: what it is told, it judges.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "sabot/native/shuffle/chunk_header.h"
#include "sabot/native/shuffle/partition_sums.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

/// Tasks from here on are plain Flight writers: their rows count, but nobody waits for them.
inline constexpr uint32_t kFirstPlainTask = 1u << 31;

struct AttemptKey {
  uint32_t task = 0;
  uint32_t attempt = 0;
  auto operator<=>(const AttemptKey&) const = default;
};

/// What to do with an offered chunk or manifest; kRefused comes with a Status.
enum class Verdict { kStore, kRepeated, kRefused };

/// Who owns which partition from `epoch` on, as one owner is told.
struct OwnerTable {
  uint32_t epoch = 0;
  std::vector<int32_t> owner_of;   // by partition; empty: partition % owner_count
  std::vector<uint64_t> given_up;  // incarnations from which nothing is taken any more
};

struct Judgement {
  Verdict verdict = Verdict::kRefused;
  arrow::Status status;
};

class Bookkeeping {
 public:
  struct Options {
    std::string shuffle_id;
    std::string agent;  // this owner's address, for messages
    int32_t num_partitions = 1;
    int32_t owner_count = 1;
    int32_t my_owner = 0;
    int32_t sender_count = 0;  // tasks 0 to sender_count - 1 make the shuffle complete; 0 where a coordinator says so
    OwnerTable table;
    bool owners_fixed = true;     // refuse partitions that are not ours; false where senders may name any target
    bool dedupe = true;           // a guard: tests switch it off to see it needed
    bool check_manifests = true;  // likewise
    bool check_epochs = true;     // likewise
  };

  explicit Bookkeeping(Options options) : options_(std::move(options)) {}

  /// From now on only what is of `table`'s epoch is taken; what was confirmed before stays readable. A repeat does
  /// nothing, nor does a table that has been overtaken.
  void Reown(OwnerTable table);

  Judgement OfferChunk(const ChunkHeader& header, int64_t batch_rows);
  Judgement OfferManifest(const ChunkHeader& header);

  /// The sums that the manifests of `attempts` promise for `partition`, added up; kPeerLost naming the first task whose
  /// manifest is not in, kUsage where two are of one task.
  arrow::Result<PartitionSum> Promised(int32_t partition, const std::vector<AttemptKey>& attempts) const;

  /// Every attempt whose manifest has been accepted, in order of task and attempt.
  std::vector<AttemptKey> ConfirmedAttempts() const;
  /// The manifests of all `sender_count` tasks are in.
  bool SendersFinished() const;

  bool Owns(int32_t partition) const;
  /// It is ours, or was by an earlier table: what was confirmed then is still here.
  bool OwnsOrDid(int32_t partition) const;
  /// What it keeps of chunks and attempts.
  int64_t index_bytes() const;
  const Options& options() const { return options_; }
  const std::optional<Layout>& layout() const { return layout_; }

 private:
  struct Attempt {
    std::unordered_map<uint32_t, uint64_t> checksum_of;  // by sequence
    PartitionSums sums;                                  // what the chunks carried; then what the manifest says
    uint64_t marks = 0;
    uint64_t incarnation = 0;
    bool confirmed = false;
  };

  arrow::Status CheckEpoch(const ChunkHeader& header) const;
  arrow::Status CheckExtents(const ChunkHeader& header) const;
  arrow::Status CheckRows(const ChunkHeader& header, int64_t batch_rows) const;
  /// Where senders are counted, a task beyond them or a second attempt of one would make a partition look complete.
  arrow::Status CheckTask(const ChunkHeader& header) const;
  arrow::Status CheckSender(const ChunkHeader& header, const Attempt& attempt) const;
  arrow::Status CheckManifest(const ChunkHeader& header, const Attempt& attempt) const;
  std::string Facts(const ChunkHeader& header, int32_t partition) const;

  Options options_;
  std::optional<Layout> layout_;
  std::map<AttemptKey, Attempt> attempts_;
  std::set<int32_t> given_away_;  // partitions that were ours by an earlier table
};

}  // namespace sabot::shuffle
