#include "sabot/native/spill/spilled_run.h"

#include <arrow/array.h>
#include <arrow/io/memory.h>
#include <arrow/ipc/message.h>
#include <arrow/ipc/options.h>
#include <arrow/ipc/reader.h>
#include <arrow/ipc/writer.h>
#include <arrow/memory_pool.h>
#include <arrow/table.h>
#include <arrow/util/byte_size.h>
#include <arrow/util/compression.h>

#define XXH_INLINE_ALL
#include <arrow/vendored/xxhash.h>

#include <algorithm>
#include <limits>
#include <set>

#include "sabot/native/rows/storage.h"
#include "sabot/native/spill/row_block.h"
#include "sabot/native/status.h"

namespace sabot::spill {
namespace {

// Larger reads gain nothing, and this much is held twice while it is packed: by malloc, since the ledger may be full,
// and Arrow's own pool would keep it.
constexpr int64_t kSegmentBytesMax = 4 << 20;

bool HasDictionary(const arrow::DataType& type) {
  const arrow::DataType& storage = rows::StorageOf(type);
  if (storage.id() == arrow::Type::DICTIONARY) return true;
  return std::ranges::any_of(storage.fields(), [](const auto& field) { return HasDictionary(*field->type()); });
}

bool HasView(const arrow::DataType& type) {
  const arrow::DataType& storage = rows::StorageOf(type);
  const arrow::Type::type id = storage.id();
  if (id == arrow::Type::BINARY_VIEW || id == arrow::Type::STRING_VIEW || id == arrow::Type::LIST_VIEW ||
      id == arrow::Type::LARGE_LIST_VIEW) {
    return true;
  }
  return std::ranges::any_of(storage.fields(), [](const auto& field) { return HasView(*field->type()); });
}

/// IPC writes what views point into whole, of a slice too: every partition would get its whole chunk's values.
bool NeedsCompacting(const arrow::Schema& schema) {
  return std::ranges::any_of(schema.fields(), [](const auto& field) { return HasView(*field->type()); });
}

/// Dictionaries travel in messages of their own, so that such rows need a whole IPC stream.
bool NeedsStream(const arrow::Schema& schema) {
  return std::ranges::any_of(schema.fields(), [](const auto& field) { return HasDictionary(*field->type()); });
}

arrow::Result<arrow::ipc::IpcWriteOptions> WriteOptions() {
  auto options = arrow::ipc::IpcWriteOptions::Defaults();
  options.memory_pool = arrow::system_memory_pool();
  ARROW_ASSIGN_OR_RAISE(options.codec, arrow::util::Codec::Create(arrow::Compression::LZ4_FRAME));
  options.use_threads = false;
  options.min_space_savings = 0.05;
  return options;
}

arrow::Result<std::shared_ptr<arrow::Buffer>> Encode(const std::vector<std::shared_ptr<arrow::RecordBatch>>& batches,
                                                     const arrow::Schema& schema) {
  ARROW_ASSIGN_OR_RAISE(const auto options, WriteOptions());
  ARROW_ASSIGN_OR_RAISE(auto sink, arrow::io::BufferOutputStream::Create(1 << 16, arrow::system_memory_pool()));
  if (NeedsStream(schema)) {
    ARROW_ASSIGN_OR_RAISE(auto writer,
                          arrow::ipc::MakeStreamWriter(sink, std::make_shared<arrow::Schema>(schema), options));
    for (const auto& batch : batches) ARROW_RETURN_NOT_OK(writer->WriteRecordBatch(*batch));
    ARROW_RETURN_NOT_OK(writer->Close());
    return sink->Finish();
  }
  arrow::ipc::IpcPayload payload;
  ARROW_RETURN_NOT_OK(arrow::ipc::GetRecordBatchPayload(*batches.front(), options, &payload));
  int32_t metadata_bytes = 0;
  ARROW_RETURN_NOT_OK(arrow::ipc::WriteIpcPayload(payload, options, sink.get(), &metadata_bytes));
  return sink->Finish();
}

uint64_t ChecksumOf(const arrow::Buffer& bytes) { return XXH3_64bits(bytes.data(), static_cast<size_t>(bytes.size())); }

int64_t BytesOf(const arrow::RecordBatch& batch) {
  const auto bytes = arrow::util::ReferencedBufferSize(batch);
  return bytes.ok() ? *bytes : arrow::util::TotalBufferSize(batch);
}

}  // namespace

arrow::Result<std::shared_ptr<const SpilledRun>> SpilledRun::Write(Content content, SpillGroup* group) {
  if (content.coalesce) std::ranges::stable_sort(content.pieces, {}, &RowsToSpill::partition);
  const size_t folders = group->space().folder_count();
  const size_t start = group->space().NextFolder();
  arrow::Status trouble;
  for (size_t i = 0; i < folders; ++i) {
    std::shared_ptr<SpilledRun> run(new SpilledRun());
    auto file = group->FileIn((start + i) % folders);
    if (file.ok()) {
      const int64_t size = (*file)->size();
      const arrow::Status status = run->WriteTo(content, file->get());
      if (status.ok()) {
        run->file_ = *std::move(file);
        return std::shared_ptr<const SpilledRun>(std::move(run));
      }
      (*file)->CutTo(size);
      trouble = status;
    } else {
      trouble = file.status();
    }
    if (CodeOf(trouble) != Code::kLimit) break;  // another folder would not help
  }
  return trouble;
}

arrow::Status SpilledRun::WriteTo(const Content& content, SpillFile* file) {
  name_ = content.name;
  agent_ = content.agent;
  schema_ = content.schema;
  chunks_ = content.chunks;
  const std::vector<RowsToSpill>& pieces = content.pieces;
  const bool alone = !content.coalesce || NeedsStream(*schema_);
  for (size_t first = 0; first < pieces.size();) {
    int64_t bytes = BytesOf(*pieces[first].rows);
    size_t end = first + 1;
    for (; !alone && end < pieces.size() && pieces[end].partition == pieces[first].partition; ++end) {
      bytes += BytesOf(*pieces[end].rows);
      if (bytes > kSegmentBytesMax) break;
    }
    ARROW_RETURN_NOT_OK(WriteSegment(content, first, end, file));
    first = end;
  }
  segments_.push_back({file->size(), 0, 0, static_cast<uint32_t>(pieces_.size())});
  segments_.shrink_to_fit();
  pieces_.shrink_to_fit();
  return arrow::Status::OK();
}

arrow::Status SpilledRun::WriteSegment(const Content& content, size_t first, size_t end, SpillFile* file) {
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  const auto first_piece = static_cast<uint32_t>(pieces_.size());
  const bool compact = NeedsCompacting(*schema_);
  for (size_t i = first; i < end; ++i) {
    const RowsToSpill& piece = content.pieces[i];
    if (piece.rows->num_rows() > std::numeric_limits<uint32_t>::max()) {
      return MakeStatus(Code::kInternal,
                        "More than 2^32 rows of one chunk were to be written to disk. Please report it.");
    }
    batches.push_back(piece.rows);
    if (compact) {
      ARROW_ASSIGN_OR_RAISE(batches.back(),
                            CopyRows(*piece.rows, {.ledger = nullptr, .pool = arrow::system_memory_pool()}));
    }
    pieces_.push_back({piece.chunk, static_cast<uint32_t>(piece.rows->num_rows())});
  }
  if (batches.size() > 1) {
    ARROW_ASSIGN_OR_RAISE(auto joined, arrow::ConcatenateRecordBatches(batches, arrow::system_memory_pool()));
    batches = {std::move(joined)};
  }
  ARROW_ASSIGN_OR_RAISE(const auto bytes, Encode(batches, *schema_));
  ARROW_ASSIGN_OR_RAISE(const int64_t offset, file->Append(*bytes));
  segments_.push_back({offset, ChecksumOf(*bytes), content.pieces[first].partition, first_piece});
  return arrow::Status::OK();
}

std::pair<uint32_t, uint32_t> SpilledRun::SegmentsOf(uint32_t partition) const {
  const auto found =
      std::ranges::equal_range(segments_.begin(), segments_.end() - 1, partition, {}, &Segment::partition);
  return {static_cast<uint32_t>(found.begin() - segments_.begin()),
          static_cast<uint32_t>(found.end() - segments_.begin())};
}

int64_t SpilledRun::segment_rows(uint32_t segment) const {
  int64_t rows = 0;
  for (uint32_t i = segments_[segment].first_piece; i < segments_[segment + 1].first_piece; ++i)
    rows += pieces_[i].rows;
  return rows;
}

std::vector<ChunkTag> SpilledRun::ChunksIn(uint32_t segment) const {
  std::vector<ChunkTag> chunks;
  for (uint32_t i = segments_[segment].first_piece; i < segments_[segment + 1].first_piece; ++i) {
    chunks.push_back(chunks_[pieces_[i].chunk]);
  }
  return chunks;
}

int64_t SpilledRun::index_bytes() const {
  return static_cast<int64_t>(segments_.capacity() * sizeof(Segment) + pieces_.capacity() * sizeof(PieceEntry) +
                              chunks_.capacity() * sizeof(ChunkTag));
}

arrow::Status SpilledRun::Changed(uint32_t segment, const std::string& what) const {
  std::set<uint32_t> tasks;
  for (const ChunkTag& chunk : ChunksIn(segment)) tasks.insert(chunk.task);
  std::string others;
  for (auto task = std::next(tasks.begin()); task != tasks.end(); ++task) others += " " + std::to_string(*task);
  return MakeStatus(Code::kIntegrity, "Rows that were written to disk " + what + ": " + file_->path() + ", byte " +
                                          std::to_string(segments_[segment].offset) +
                                          (others.empty() ? "" : "; rows of further tasks are in it:" + others) +
                                          " (shuffle=" + name_ +
                                          ", partition=" + std::to_string(segments_[segment].partition) +
                                          ", task=" + std::to_string(*tasks.begin()) + ", agent=" + agent_ + ")");
}

arrow::Result<std::vector<std::shared_ptr<arrow::RecordBatch>>> SpilledRun::Decode(std::shared_ptr<arrow::Buffer> bytes,
                                                                                   arrow::MemoryPool* pool) const {
  auto options = arrow::ipc::IpcReadOptions::Defaults();
  options.memory_pool = pool;
  options.use_threads = false;
  auto source = std::make_shared<arrow::io::BufferReader>(std::move(bytes));
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  if (NeedsStream(*schema_)) {
    ARROW_ASSIGN_OR_RAISE(auto reader, arrow::ipc::RecordBatchStreamReader::Open(source, options));
    ARROW_ASSIGN_OR_RAISE(batches, reader->ToRecordBatches());
    return batches;
  }
  ARROW_ASSIGN_OR_RAISE(const auto message, arrow::ipc::ReadMessage(source.get()));
  if (message == nullptr) return arrow::Status::IOError("there is no message");
  ARROW_ASSIGN_OR_RAISE(auto batch, arrow::ipc::ReadRecordBatch(*message, schema_, nullptr, options));
  batches.push_back(std::move(batch));
  return batches;
}

arrow::Result<std::vector<LoadedPiece>> SpilledRun::Load(uint32_t segment, arrow::MemoryPool* pool) const {
  auto read = file_->Read(segments_[segment].offset, segment_bytes(segment), pool);
  if (!read.ok()) {
    return read.status().IsOutOfMemory() ? read.status() : Changed(segment, PlainMessage(read.status()));
  }
  if (file_->space().verify_loads() && ChecksumOf(**read) != segments_[segment].checksum) {
    return Changed(segment, "were changed there, as their checksum shows");
  }
  auto decoded = Decode(*std::move(read), pool);
  if (!decoded.ok()) {
    if (decoded.status().IsOutOfMemory()) return decoded.status();
    return Changed(segment, "cannot be unpacked (" + decoded.status().message() + ")");
  }
  int64_t rows = 0;
  for (const auto& batch : *decoded) rows += batch->num_rows();
  if (rows != segment_rows(segment) || decoded->size() != 1) return Changed(segment, "have another number now");
  std::vector<LoadedPiece> pieces;
  int64_t start = 0;
  for (uint32_t i = segments_[segment].first_piece; i < segments_[segment + 1].first_piece; ++i) {
    pieces.push_back({chunks_[pieces_[i].chunk], decoded->front()->Slice(start, pieces_[i].rows)});
    start += pieces_[i].rows;
  }
  return pieces;
}

}  // namespace sabot::spill
