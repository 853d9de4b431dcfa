#include "sabot/native/shuffle/bookkeeping.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace sabot::shuffle {
namespace {

Judgement Refused(arrow::Status status) { return {Verdict::kRefused, std::move(status)}; }

}  // namespace

bool Bookkeeping::Owns(int32_t partition) const {
  if (partition < 0 || partition >= options_.num_partitions || options_.owner_count <= 0) return false;
  const std::vector<int32_t>& owner_of = options_.table.owner_of;
  const auto index = static_cast<size_t>(partition);
  return (index < owner_of.size() ? owner_of[index] : partition % options_.owner_count) == options_.my_owner;
}

void Bookkeeping::Reown(OwnerTable table) {
  if (table.epoch <= options_.table.epoch) return;
  for (int32_t partition = 0; partition < options_.num_partitions; ++partition) {
    if (Owns(partition)) given_away_.insert(partition);
  }
  options_.table = std::move(table);
}

bool Bookkeeping::OwnsOrDid(int32_t partition) const { return Owns(partition) || given_away_.contains(partition); }

arrow::Status Bookkeeping::CheckEpoch(const ChunkHeader& header) const {
  if (!options_.check_epochs) return arrow::Status::OK();
  if (std::ranges::find(options_.table.given_up, header.incarnation) != options_.table.given_up.end()) {
    return MakeStatus(Code::kPeerRefused,
                      "The sender was given up by its job, which goes on without it; it is taken "
                      "back only when it is started anew" +
                          Facts(header, -1));
  }
  if (header.epoch == options_.table.epoch) return arrow::Status::OK();
  return MakeStatus(Code::kPeerRefused, "Rows of epoch " + std::to_string(header.epoch) + " came in epoch " +
                                            std::to_string(options_.table.epoch) +
                                            " of the owner table; their task is tried again by the table of now" +
                                            Facts(header, -1));
}

std::string Bookkeeping::Facts(const ChunkHeader& header, int32_t partition) const {
  std::string facts = " (shuffle=" + options_.shuffle_id;
  if (partition >= 0) facts += ", partition=" + std::to_string(partition);
  return facts + ", task=" + std::to_string(header.task) + ", attempt=" + std::to_string(header.attempt) +
         ", agent=" + options_.agent + ")";
}

arrow::Status Bookkeeping::CheckExtents(const ChunkHeader& header) const {
  for (const rows::Extent& extent : header.extents) {
    if (extent.partition >= options_.num_partitions) {
      return MakeStatus(Code::kPeerRefused, "A chunk names a partition beyond the shuffle's " +
                                                std::to_string(options_.num_partitions) +
                                                Facts(header, extent.partition));
    }
    if (options_.owners_fixed && !Owns(extent.partition)) {
      return MakeStatus(Code::kPeerRefused,
                        "A chunk came to an agent that does not own its partition" + Facts(header, extent.partition));
    }
  }
  return arrow::Status::OK();
}

arrow::Status Bookkeeping::CheckRows(const ChunkHeader& header, int64_t batch_rows) const {
  uint64_t extent_rows = 0;
  bool beyond = false;
  std::unordered_set<int32_t> partitions;
  for (const rows::Extent& extent : header.extents) {
    extent_rows += static_cast<uint64_t>(extent.rows);
    beyond = beyond || extent.rows > batch_rows;  // so that no sum can wrap round to the right one
    if (!partitions.insert(extent.partition).second) {
      return MakeStatus(Code::kIntegrity, "A chunk names a partition twice" + Facts(header, extent.partition));
    }
  }
  if (!beyond && extent_rows == static_cast<uint64_t>(batch_rows)) return arrow::Status::OK();
  return MakeStatus(Code::kIntegrity, "A chunk has " + std::to_string(batch_rows) + " rows where its header says " +
                                          std::to_string(extent_rows) + Facts(header, -1));
}

arrow::Status Bookkeeping::CheckTask(const ChunkHeader& header) const {
  const bool plain = header.task >= kFirstPlainTask;
  if (options_.sender_count == 0) {
    if (!plain) return arrow::Status::OK();
    return MakeStatus(Code::kPeerRefused,
                      "A shuffle of a job takes rows from its tasks only. Upload them with "
                      "[\"sabot\", \"publish\", name, index]" +
                          Facts(header, -1));
  }
  if (!plain && header.task >= static_cast<uint32_t>(options_.sender_count)) {
    return MakeStatus(Code::kPeerRefused, "A sender is none of the shuffle's " + std::to_string(options_.sender_count) +
                                              ". Start it with the same agents everywhere" + Facts(header, -1));
  }
  for (auto other = attempts_.lower_bound({header.task, 0}); other != attempts_.end(); ++other) {
    if (other->first.task != header.task) break;
    if (other->first.attempt == header.attempt) continue;
    return MakeStatus(Code::kPeerRefused, "Another attempt of the same sender is here" + Facts(header, -1));
  }
  return arrow::Status::OK();
}

arrow::Status Bookkeeping::CheckSender(const ChunkHeader& header, const Attempt& attempt) const {
  if (attempt.incarnation == header.incarnation) return arrow::Status::OK();
  return MakeStatus(Code::kPeerRefused,
                    "A sender went on with an attempt that another incarnation of it had begun" + Facts(header, -1));
}

Judgement Bookkeeping::OfferChunk(const ChunkHeader& header, int64_t batch_rows) {
  if (arrow::Status status = CheckEpoch(header); !status.ok()) return Refused(std::move(status));
  if (arrow::Status status = CheckTask(header); !status.ok()) return Refused(std::move(status));
  if (arrow::Status status = CheckExtents(header); !status.ok()) return Refused(std::move(status));
  if (arrow::Status status = CheckRows(header, batch_rows); !status.ok()) return Refused(std::move(status));
  if (layout_ && *layout_ != header.layout) {
    return Refused(MakeStatus(Code::kPeerRefused,
                              "A chunk was partitioned by other keys than the chunks before it" + Facts(header, -1)));
  }
  const AttemptKey key{header.task, header.attempt};
  auto [found, fresh] = attempts_.try_emplace(key);
  Attempt& attempt = found->second;
  if (fresh) attempt.incarnation = header.incarnation;
  if (arrow::Status status = CheckSender(header, attempt); !status.ok()) return Refused(std::move(status));
  const auto seen = attempt.checksum_of.find(header.sequence);
  if (options_.dedupe && seen != attempt.checksum_of.end()) {
    if (seen->second == header.checksum) return {Verdict::kRepeated, arrow::Status::OK()};
    return Refused(MakeStatus(Code::kIntegrity, "Chunk " + std::to_string(header.sequence) +
                                                    " came twice with different rows" + Facts(header, -1)));
  }
  if (attempt.confirmed) {
    return Refused(MakeStatus(Code::kPeerRefused, "A chunk came after its attempt's manifest" + Facts(header, -1)));
  }
  layout_ = header.layout;
  attempt.checksum_of[header.sequence] = header.checksum;
  attempt.marks += ChunkMark(header.sequence, header.checksum);
  attempt.sums.Add(header.extents);
  return {Verdict::kStore, arrow::Status::OK()};
}

arrow::Status Bookkeeping::CheckManifest(const ChunkHeader& header, const Attempt& attempt) const {
  if (attempt.checksum_of.size() < header.sequence) {
    return MakeStatus(Code::kPeerLost, std::to_string(header.sequence - attempt.checksum_of.size()) + " of " +
                                           std::to_string(header.sequence) +
                                           " chunks are missing against the manifest" + Facts(header, -1));
  }
  if (attempt.checksum_of.size() > header.sequence || attempt.marks != header.checksum) {
    return MakeStatus(Code::kIntegrity, "The chunks that came are not those of the manifest" + Facts(header, -1));
  }
  PartitionSums promised;
  promised.Add(header.extents);
  for (const auto& [partition, sum] : attempt.sums) {
    const PartitionSum* found = promised.Find(partition);
    if (found == nullptr || *found != sum) {
      return MakeStatus(Code::kIntegrity, "A partition's rows differ from the manifest: " + std::to_string(sum.rows) +
                                              " came" + Facts(header, partition));
    }
  }
  for (const auto& [partition, sum] : promised) {
    if (sum.rows != 0 && attempt.sums.Find(partition) == nullptr) {
      return MakeStatus(Code::kIntegrity,
                        "The manifest names rows of a partition of which none came" + Facts(header, partition));
    }
  }
  return arrow::Status::OK();
}

Judgement Bookkeeping::OfferManifest(const ChunkHeader& header) {
  if (arrow::Status status = CheckEpoch(header); !status.ok()) return Refused(std::move(status));
  if (arrow::Status status = CheckTask(header); !status.ok()) return Refused(std::move(status));
  if (arrow::Status status = CheckExtents(header); !status.ok()) return Refused(std::move(status));
  auto [found, fresh] = attempts_.try_emplace(AttemptKey{header.task, header.attempt});
  Attempt& attempt = found->second;
  if (fresh) attempt.incarnation = header.incarnation;
  if (arrow::Status status = CheckSender(header, attempt); !status.ok()) return Refused(std::move(status));
  if (options_.check_manifests) {
    if (arrow::Status status = CheckManifest(header, attempt); !status.ok()) return Refused(std::move(status));
  }
  if (attempt.confirmed) return {Verdict::kRepeated, arrow::Status::OK()};
  attempt.confirmed = true;
  // What the reader is held to is the sender's word, not what the chunks said of themselves.
  attempt.sums = {};
  attempt.sums.Add(header.extents);
  attempt.sums.ShrinkToFit();
  return {Verdict::kStore, arrow::Status::OK()};
}

arrow::Result<PartitionSum> Bookkeeping::Promised(int32_t partition, const std::vector<AttemptKey>& attempts) const {
  PartitionSum total;
  std::unordered_set<uint32_t> tasks;
  for (const AttemptKey& key : attempts) {
    if (!tasks.insert(key.task).second) {
      return MakeStatus(Code::kUsage, "A partition was asked for with task " + std::to_string(key.task) +
                                          " named twice. Name one attempt of each task.");
    }
    const auto found = attempts_.find(key);
    if (found == attempts_.end() || !found->second.confirmed) {
      ChunkHeader header;
      header.task = key.task;
      header.attempt = key.attempt;
      return MakeStatus(
          Code::kPeerLost,
          "A partition cannot be read: the manifest of one of its attempts has not come" + Facts(header, partition));
    }
    const PartitionSum* sum = found->second.sums.Find(partition);
    if (sum != nullptr) total.Add(sum->rows, sum->content_sum);
  }
  return total;
}

int64_t Bookkeeping::index_bytes() const {
  constexpr int64_t kPerChunk = 4 * sizeof(uint64_t);  // a node of the map, about
  int64_t bytes = 0;
  for (const auto& [key, attempt] : attempts_) {
    bytes += attempt.sums.bytes() + kPerChunk * static_cast<int64_t>(attempt.checksum_of.size());
  }
  return bytes;
}

std::vector<AttemptKey> Bookkeeping::ConfirmedAttempts() const {
  std::vector<AttemptKey> confirmed;
  for (const auto& [key, attempt] : attempts_) {
    if (attempt.confirmed) confirmed.push_back(key);
  }
  return confirmed;
}

bool Bookkeeping::SendersFinished() const {
  int32_t finished = 0;  // CheckTask lets in one attempt of each sender, and plain writers
  for (const auto& [key, attempt] : attempts_) finished += attempt.confirmed && key.task < kFirstPlainTask ? 1 : 0;
  return finished >= options_.sender_count;
}

}  // namespace sabot::shuffle
