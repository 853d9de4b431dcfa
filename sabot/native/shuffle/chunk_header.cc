#include "sabot/native/shuffle/chunk_header.h"

#include "sabot/native/rows/hash.h"
#include "sabot/native/shuffle/byte_codec.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

constexpr std::string_view kChunkMagic = "SBTC";
constexpr std::string_view kAckMagic = "SBTA";
constexpr std::string_view kRequestMagic = "SBTW";
constexpr std::string_view kEndMagic = "SBTE";
constexpr std::string_view kReadMagic = "SBTR";
constexpr std::string_view kShareMagic = "SBTS";
constexpr size_t kExtentBytes = sizeof(uint32_t) + 2 * sizeof(uint64_t);
constexpr uint8_t kHasSchema = 1;
constexpr uint8_t kByHash = 2;
constexpr uint8_t kByColumn = 4;
constexpr size_t kAckMessageBytesMax = 4096;

arrow::Status Malformed(const char* what) {
  return MakeStatus(Code::kPeerRefused,
                    std::string("A ") + what + " could not be read: it is not of Sabot's shuffle protocol version " +
                        std::to_string(kProtocolVersion) + ". Run the same Sabot on every agent and client.");
}

bool GetMagic(ByteReader* reader, std::string_view magic) {
  std::string_view found;
  return reader->GetBytes(magic.size(), &found) && found == magic;
}

bool GetExtents(ByteReader* reader, uint32_t count, std::vector<rows::Extent>* extents) {
  if (count > kExtentsMax || reader->left() < count * kExtentBytes) return false;
  extents->reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t partition = 0;
    uint64_t row_count = 0;
    rows::Extent extent{};
    if (!reader->Get(&partition) || !reader->Get(&row_count) || !reader->Get(&extent.content_sum)) return false;
    if (partition > INT32_MAX || row_count > INT64_MAX) return false;
    extent.partition = static_cast<int32_t>(partition);
    extent.rows = static_cast<int64_t>(row_count);
    extents->push_back(extent);
  }
  return true;
}

bool GetKeyColumns(ByteReader* reader, uint16_t count, std::vector<uint16_t>* columns) {
  if (count > kKeyColumnsMax) return false;
  columns->resize(count);
  for (uint16_t& column : *columns) {
    if (!reader->Get(&column)) return false;
  }
  return true;
}

}  // namespace

uint64_t ChunkMark(uint32_t sequence, uint64_t checksum) { return rows::Mix(uint64_t{sequence} + 1, checksum); }

uint64_t ExtentsMark(const std::vector<rows::Extent>& extents) {
  uint64_t mark = 0;
  for (const rows::Extent& extent : extents) {
    mark = rows::Mix(mark, static_cast<uint64_t>(extent.partition));
    mark = rows::Mix(mark, static_cast<uint64_t>(extent.rows));
    mark = rows::Mix(mark, extent.content_sum);
  }
  return mark;
}

std::string EncodeHeader(const ChunkHeader& header) {
  ByteWriter out;
  out.PutBytes(kChunkMagic);
  out.Put(kProtocolVersion);
  out.Put(static_cast<uint8_t>(header.kind));
  out.Put(static_cast<uint8_t>((header.has_schema ? kHasSchema : 0) | (header.layout.by_hash ? kByHash : 0) |
                               (header.layout.by_column ? kByColumn : 0)));
  out.Put(header.incarnation);
  out.Put(header.checksum);
  out.Put(header.epoch);
  out.Put(header.task);
  out.Put(header.attempt);
  out.Put(header.sequence);
  out.Put(static_cast<uint32_t>(header.extents.size()));
  out.Put(static_cast<uint16_t>(header.layout.key_columns.size()));
  out.Put(static_cast<uint16_t>(header.shuffle_id.size()));
  out.Put(header.bytes);
  for (const rows::Extent& extent : header.extents) {
    out.Put(static_cast<uint32_t>(extent.partition));
    out.Put(static_cast<uint64_t>(extent.rows));
    out.Put(extent.content_sum);
  }
  for (const uint16_t column : header.layout.key_columns) out.Put(column);
  out.PutBytes(header.shuffle_id);
  return out.Take();
}

arrow::Result<ChunkHeader> DecodeHeader(std::string_view bytes) {
  ByteReader in(bytes);
  ChunkHeader header;
  uint16_t version = 0;
  uint8_t kind = 0;
  uint8_t flags = 0;
  uint32_t extent_count = 0;
  uint16_t key_count = 0;
  uint16_t id_bytes = 0;
  std::string_view id;
  if (!GetMagic(&in, kChunkMagic) || !in.Get(&version) || version != kProtocolVersion) return Malformed("chunk header");
  const bool whole = in.Get(&kind) && in.Get(&flags) && in.Get(&header.incarnation) && in.Get(&header.checksum) &&
                     in.Get(&header.epoch) && in.Get(&header.task) && in.Get(&header.attempt) &&
                     in.Get(&header.sequence) && in.Get(&extent_count) && in.Get(&key_count) && in.Get(&id_bytes) &&
                     in.Get(&header.bytes) && header.bytes <= INT64_MAX &&
                     GetExtents(&in, extent_count, &header.extents) &&
                     GetKeyColumns(&in, key_count, &header.layout.key_columns) && id_bytes <= kShuffleIdBytesMax &&
                     in.GetBytes(id_bytes, &id) && in.left() == 0;
  const bool known =
      kind == static_cast<uint8_t>(MessageKind::kChunk) || kind == static_cast<uint8_t>(MessageKind::kManifest);
  if (!whole || !known || (flags & ~(kHasSchema | kByHash | kByColumn)) != 0) return Malformed("chunk header");
  header.kind = static_cast<MessageKind>(kind);
  header.has_schema = (flags & kHasSchema) != 0;
  header.layout.by_hash = (flags & kByHash) != 0;
  header.layout.by_column = (flags & kByColumn) != 0;
  header.shuffle_id = id;
  return header;
}

Ack AckFor(const ChunkHeader& header) {
  Ack ack;
  ack.kind = header.kind;
  ack.task = header.task;
  ack.attempt = header.attempt;
  ack.sequence = header.sequence;
  return ack;
}

std::string EncodeAck(const Ack& ack) {
  ByteWriter out;
  const std::string message = ShortMessage(ack.message, kAckMessageBytesMax);
  out.PutBytes(kAckMagic);
  out.Put(kProtocolVersion);
  out.Put(static_cast<uint8_t>(ack.kind));
  out.Put(static_cast<uint8_t>(ack.repeated));
  out.Put(ack.code);
  out.Put(ack.task);
  out.Put(ack.attempt);
  out.Put(ack.sequence);
  out.Put(ack.granted);
  out.Put(static_cast<uint16_t>(message.size()));
  out.PutBytes(message);
  return out.Take();
}

arrow::Result<Ack> DecodeAck(std::string_view bytes) {
  ByteReader in(bytes);
  Ack ack;
  uint16_t version = 0;
  uint8_t kind = 0;
  uint8_t repeated = 0;
  uint16_t message_bytes = 0;
  std::string_view message;
  const bool whole = GetMagic(&in, kAckMagic) && in.Get(&version) && version == kProtocolVersion && in.Get(&kind) &&
                     in.Get(&repeated) && in.Get(&ack.code) && in.Get(&ack.task) && in.Get(&ack.attempt) &&
                     in.Get(&ack.sequence) && in.Get(&ack.granted) && in.Get(&message_bytes) &&
                     in.GetBytes(message_bytes, &message) && in.left() == 0;
  const bool known = ack.code >= 0 && ack.code <= static_cast<int32_t>(Code::kUnhashableKey);
  if (!whole || !known) return Malformed("acknowledgement");
  ack.kind = static_cast<MessageKind>(kind);  // compared with what was sent, which is never another kind
  ack.repeated = repeated != 0;
  ack.message = message;
  return ack;
}

std::string EncodeCreditRequest(uint64_t total) {
  ByteWriter out;
  out.PutBytes(kRequestMagic);
  out.Put(kProtocolVersion);
  out.Put(total);
  return out.Take();
}

bool IsCreditRequest(std::string_view bytes) { return bytes.starts_with(kRequestMagic); }

arrow::Result<uint64_t> DecodeCreditRequest(std::string_view bytes) {
  ByteReader in(bytes);
  uint16_t version = 0;
  uint64_t total = 0;
  const bool whole = GetMagic(&in, kRequestMagic) && in.Get(&version) && version == kProtocolVersion &&
                     in.Get(&total) && total <= INT64_MAX && in.left() == 0;
  if (!whole) return Malformed("request for credit");
  return total;
}

arrow::Result<uint64_t> DecodeEnd(std::string_view bytes) {
  ByteReader in(bytes);
  uint64_t row_count = 0;
  if (!GetMagic(&in, kEndMagic) || !in.Get(&row_count) || in.left() != 0) return Malformed("last message");
  return row_count;
}

std::string EncodeReadMark(const ReadMark& mark) {
  ByteWriter out;
  out.PutBytes(kReadMagic);
  out.Put(static_cast<uint8_t>(mark.last));
  out.PutBytes(std::string_view("\0\0\0", 3));
  out.Put(mark.sequence);
  out.Put(mark.rows);
  out.Put(mark.content_sum);
  return out.Take();
}

arrow::Result<ReadMark> DecodeReadMark(std::string_view bytes) {
  ByteReader in(bytes);
  ReadMark mark;
  uint8_t last = 0;
  std::string_view padding;
  const bool whole = GetMagic(&in, kReadMagic) && in.Get(&last) && in.GetBytes(3, &padding) && in.Get(&mark.sequence) &&
                     in.Get(&mark.rows) && in.Get(&mark.content_sum) && in.left() == 0;
  if (!whole) return Malformed("read mark");
  mark.last = last != 0;
  return mark;
}

std::string EncodeShareMark(const ShareMark& mark) {
  ByteWriter out;
  out.PutBytes(kShareMagic);
  out.Put(static_cast<uint8_t>(mark.last));
  out.PutBytes(std::string_view("\0\0\0", 3));
  out.Put(mark.task);
  out.Put(mark.sequence);
  out.Put(mark.rows);
  out.Put(mark.checksum);
  return out.Take();
}

arrow::Result<ShareMark> DecodeShareMark(std::string_view bytes) {
  ByteReader in(bytes);
  ShareMark mark;
  uint8_t last = 0;
  std::string_view padding;
  const bool whole = GetMagic(&in, kShareMagic) && in.Get(&last) && in.GetBytes(3, &padding) && in.Get(&mark.task) &&
                     in.Get(&mark.sequence) && in.Get(&mark.rows) && in.Get(&mark.checksum) && in.left() == 0;
  if (!whole) return Malformed("share mark");
  mark.last = last != 0;
  return mark;
}

}  // namespace sabot::shuffle
