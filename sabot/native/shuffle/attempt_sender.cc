#include "sabot/native/shuffle/attempt_sender.h"

#include <arrow/util/byte_size.h>

#include <algorithm>

#include "sabot/native/rows/checksum.h"
#include "sabot/native/rows/row_bytes.h"
#include "sabot/native/shuffle/chunk_bytes.h"
#include "sabot/native/shuffle/placement_digest.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

// Flight and gRPC carry less than 2 GiB a message; the rest is for the header, whose extents may take 21 MB, and
// padding.
constexpr int64_t kMessageBytesMax = (int64_t{2} << 30) - (int64_t{32} << 20);

arrow::Status TooLarge(const arrow::RecordBatch& batch, int64_t bytes) {
  int64_t most = -1;
  std::string name;
  for (int i = 0; i < batch.num_columns(); ++i) {
    ARROW_ASSIGN_OR_RAISE(const int64_t held, arrow::util::ReferencedBufferSize(*batch.column(i)));
    if (held <= most) continue;
    most = held;
    name = batch.column_name(i);
  }
  return MakeStatus(Code::kLimit, std::to_string(batch.num_rows()) + " row(s) hold " + std::to_string(bytes) +
                                      " bytes, " + std::to_string(most) + " of them in column \"" + name +
                                      "\", and one message carries at most " + std::to_string(kMessageBytesMax) +
                                      ". Split the column's values over several rows (column=" + name + ")");
}

}  // namespace

ChunkHeader AttemptSender::NewHeader() const {
  ChunkHeader header;
  header.shuffle_id = options_.shuffle_id;
  header.incarnation = options_.incarnation;
  header.epoch = options_.epoch;
  header.task = options_.attempt.task;
  header.attempt = options_.attempt.attempt;
  header.layout = options_.layout;
  return header;
}

AttemptSender::PerOwner& AttemptSender::OwnerLocked(int32_t owner) {
  if (per_owner_.size() < options_.owners.size()) per_owner_.resize(options_.owners.size());
  return per_owner_[static_cast<size_t>(owner)];
}

arrow::Status AttemptSender::Send(const std::vector<rows::ScatteredChunk>& chunks) {
  if (options_.digest_placement) {
    ARROW_ASSIGN_OR_RAISE(const uint64_t digest, PlacementDigest(chunks));
    std::lock_guard lock(mutex_);
    summary_.placement_digest += digest;
  }
  for (const rows::ScatteredChunk& chunk : chunks) {
    if (static_cast<size_t>(chunk.owner) >= options_.owners.size()) continue;  // not asked for in this replay
    arrow::Status status = SendChunk(chunk);
    if (status.ok()) continue;
    if (&chunk != chunks.data()) NoteFailure(status);
    return status;
  }
  return arrow::Status::OK();
}

arrow::Status AttemptSender::SendChunk(const rows::ScatteredChunk& chunk) {
  ARROW_ASSIGN_OR_RAISE(const int64_t bytes, arrow::util::ReferencedBufferSize(*chunk.batch));
  if (bytes > kMessageBytesMax) return TooLarge(*chunk.batch, bytes);
  const bool local = chunk.owner == options_.my_owner;
  uint64_t checksum = local ? ExtentsMark(chunk.extents) : chunk.checksum.value_or(0);
  if (options_.checksums && !local && !chunk.checksum) {
    ARROW_ASSIGN_OR_RAISE(checksum, rows::ChecksumBatch(*chunk.batch));
  }
  ChunkHeader header = NewHeader();
  header.kind = MessageKind::kChunk;
  header.checksum = checksum;
  header.extents = chunk.extents;
  if (!local) {
    ARROW_ASSIGN_OR_RAISE(const int64_t to_receive, BytesToReceive(*chunk.batch));
    header.bytes = static_cast<uint64_t>(to_receive);
  }
  const rows::RowBytes row_bytes(*chunk.batch);
  {
    std::lock_guard lock(mutex_);
    if (!failure_.ok()) return failure_;
    if (finished_) return MakeStatus(Code::kUsage, "Rows were sent into a shuffle after this sender had finished it.");
    if (schema_ == nullptr) schema_ = options_.schema != nullptr ? options_.schema : chunk.batch->schema();
    if (!schema_->Equals(*chunk.batch->schema(), /*check_metadata=*/false)) {
      return MakeStatus(Code::kUsage, "A batch has the schema {" + chunk.batch->schema()->ToString() +
                                          "} where the shuffle's rows have {" + schema_->ToString() + "}. Cast it.");
    }
    PerOwner& owner = OwnerLocked(chunk.owner);
    header.sequence = owner.chunks++;
    owner.marks += ChunkMark(header.sequence, checksum);
    int64_t row = 0;
    for (const rows::Extent& extent : chunk.extents) {
      owner.sums[extent.partition].Add(extent.rows, extent.content_sum);
      summary_.sums[extent.partition].Add(extent.rows, extent.content_sum, row_bytes.Of(row, extent.rows));
      summary_.rows += extent.rows;
      row += extent.rows;
    }
    (local ? summary_.local_bytes : summary_.wire_bytes) += bytes;
  }
  if (arrow::Status status = HandOver(header, chunk, local); !status.ok()) {
    NoteFailure(status);  // it is numbered: without it the attempt cannot be whole, and again it would be twice
    return status;
  }
  return arrow::Status::OK();
}

arrow::Status AttemptSender::HandOver(const ChunkHeader& header, const rows::ScatteredChunk& chunk, bool local) {
  if (local) return store_->Put(header, chunk.batch, slots::Source::kLocal).status();
  ARROW_ASSIGN_OR_RAISE(auto link, link_to_(options_.owners[static_cast<size_t>(chunk.owner)]));
  auto rows = std::make_shared<const WaitingRows>(chunk.batch, static_cast<int64_t>(header.bytes));
  link->Enqueue(
      {EncodeHeader(header), AckFor(header), std::move(rows), chunk.batch->schema(), shared_from_this(), header.bytes});
  return arrow::Status::OK();
}

arrow::Status AttemptSender::Finish() {
  const arrow::Status status = SendManifests();
  if (!status.ok()) NoteFailure(status);
  return status;
}

arrow::Status AttemptSender::SendManifests() {
  std::vector<ChunkHeader> manifests;
  std::shared_ptr<arrow::Schema> schema;
  {
    std::lock_guard lock(mutex_);
    if (!failure_.ok()) return failure_;
    if (finished_) return MakeStatus(Code::kUsage, "This sender has finished the shuffle already.");
    finished_ = true;
    schema = schema_ != nullptr ? schema_ : options_.schema;
    for (size_t i = 0; i < options_.owners.size(); ++i) {
      const PerOwner& owner = OwnerLocked(static_cast<int32_t>(i));
      ChunkHeader& manifest = manifests.emplace_back(NewHeader());
      manifest.kind = MessageKind::kManifest;
      manifest.has_schema = schema != nullptr;
      manifest.sequence = owner.chunks;
      manifest.checksum = owner.marks;
      for (const auto& [partition, sum] : owner.sums)
        manifest.extents.push_back({partition, sum.rows, sum.content_sum});
    }
  }
  const auto stream_schema = schema != nullptr ? schema : arrow::schema({});
  for (size_t i = 0; i < manifests.size(); ++i) {
    if (static_cast<int32_t>(i) == options_.my_owner) {
      ARROW_RETURN_NOT_OK(store_->PutManifest(manifests[i], stream_schema).status());
      std::lock_guard lock(mutex_);
      per_owner_[i].confirmed = true;
      changed_.notify_all();
    } else {
      ARROW_ASSIGN_OR_RAISE(auto link, link_to_(options_.owners[i]));
      link->Enqueue({EncodeHeader(manifests[i]), AckFor(manifests[i]), nullptr, stream_schema, shared_from_this(), 0});
    }
  }
  return arrow::Status::OK();
}

arrow::Result<bool> AttemptSender::WaitConfirmed(Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  const auto settled = [&] {
    return !failure_.ok() || (finished_ && std::ranges::all_of(per_owner_, &PerOwner::confirmed));
  };
  if (!changed_.wait_until(lock, deadline, settled)) return false;
  ARROW_RETURN_NOT_OK(failure_);
  return true;
}

void AttemptSender::Abort() {
  NoteFailure(MakeStatus(Code::kCancelled, "The attempt was given up before it was confirmed."));
}

void AttemptSender::NoteFailure(const arrow::Status& status) {
  std::lock_guard lock(mutex_);
  if (failure_.ok()) failure_ = status;
  changed_.notify_all();
}

void AttemptSender::Undelivered(const std::string&, const arrow::Status& status) { NoteFailure(status); }

void AttemptSender::Acknowledged(const std::string& peer, const Ack& ack) {
  if (ack.code != 0) return NoteFailure(MakeStatus(static_cast<Code>(ack.code), ack.message));
  if (ack.kind != MessageKind::kManifest) return;
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < options_.owners.size(); ++i) {
    if (options_.owners[i] == peer) per_owner_[i].confirmed = true;
  }
  changed_.notify_all();
}

SendSummary AttemptSender::summary() const {
  std::lock_guard lock(mutex_);
  return summary_;
}

std::vector<std::string> AttemptSender::OwnersWaitedFor() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> waited_for;
  for (size_t i = 0; i < per_owner_.size(); ++i) {
    if (!per_owner_[i].confirmed) waited_for.push_back(options_.owners[i]);
  }
  return waited_for;
}

}  // namespace sabot::shuffle
