#include "sabot/native/shuffle/share_pull.h"

#include "sabot/native/rows/checksum.h"
#include "sabot/native/rows/hash.h"
#include "sabot/native/rows/row_bytes.h"
#include "sabot/native/shuffle/chunk_header.h"
#include "sabot/native/shuffle/received_batch.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

namespace flight = arrow::flight;

arrow::Result<uint64_t> SumOf(const arrow::RecordBatch& batch, const std::vector<int>& key_columns, uint32_t task) {
  if (batch.num_columns() == 0) return 0;
  for (const int key : key_columns) {
    if (key < 0 || key >= batch.num_columns()) return MakeStatus(Code::kIntegrity, "A share lacks a key column.");
  }
  return rows::ContentSum(batch, key_columns, static_cast<int>(task % static_cast<uint32_t>(batch.num_columns())));
}

}  // namespace

arrow::Result<std::shared_ptr<Pulled>> ReadShare(flight::FlightStreamReader* reader, const std::string& address,
                                                 const std::vector<int>& key_columns) {
  auto share = std::make_shared<Pulled>();
  ARROW_ASSIGN_OR_RAISE(share->schema, reader->GetSchema());
  bool last = false;
  for (uint32_t sequence = 0;; ++sequence) {
    ARROW_ASSIGN_OR_RAISE(const flight::FlightStreamChunk message, reader->Next());
    if (message.data == nullptr) break;
    if (message.app_metadata == nullptr) {
      return MakeStatus(Code::kPeerRefused, "Agent " + address + " sent a batch without its mark: it is not Sabot's.");
    }
    ARROW_ASSIGN_OR_RAISE(const ShareMark mark, DecodeShareMark(std::string_view(*message.app_metadata)));
    ARROW_ASSIGN_OR_RAISE(auto batch, AlignAndValidate(message.data));
    ARROW_ASSIGN_OR_RAISE(const uint64_t checksum, rows::ChecksumBatch(*batch));
    share->rows += batch->num_rows();
    if (mark.checksum != checksum || mark.sequence != sequence || mark.rows != static_cast<uint64_t>(share->rows)) {
      return MakeStatus(Code::kIntegrity,
                        "Rows of a partition were lost or changed while being fetched (agent=" + address + ")");
    }
    ARROW_ASSIGN_OR_RAISE(const uint64_t sum, SumOf(*batch, key_columns, mark.task));
    share->content_sum += sum;
    share->bytes += rows::BytesOfRows(*batch);
    last = mark.last;
    if (batch->num_rows() > 0) share->batches.push_back(std::move(batch));
  }
  if (last) return share;
  return MakeStatus(Code::kPeerLost,
                    "Agent " + address + " broke off before the end of the partition (address=" + address + ")");
}

}  // namespace sabot::shuffle
