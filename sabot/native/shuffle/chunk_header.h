// What travels beside the rows: chunk headers, manifests, acknowledgements (docs/protocol.md). Pure bytes, no I/O.
#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sabot/native/rows/partitioner.h"

namespace sabot::shuffle {

inline constexpr uint16_t kProtocolVersion = 3;
inline constexpr size_t kShuffleIdBytesMax = 512;
inline constexpr uint32_t kExtentsMax = 1u << 20;
inline constexpr uint16_t kKeyColumnsMax = 256;

enum class MessageKind : uint8_t { kChunk = 1, kManifest = 2, kCredit = 3 };  // kCredit: of acknowledgements only

/// How rows came to their partitions: what a reader needs to audit them.
struct Layout {
  bool by_hash = false;               // a row's partition is that of its key hash; otherwise any row may be anywhere
  bool by_column = false;             // a row's partition is the value of its one key column, an int32
  std::vector<uint16_t> key_columns;  // column indices, in key order; without any the key hash is 0
  bool operator==(const Layout&) const = default;
};

/// The header of a chunk or a manifest. In a manifest `sequence` is the chunk count, `checksum` the wrapping sum of
/// ChunkMark over the chunks, and each partition has one extent.
struct ChunkHeader {
  MessageKind kind = MessageKind::kChunk;
  bool has_schema = true;  // manifest: false where the sender never had rows, so its stream's schema means nothing
  std::string shuffle_id;
  uint64_t incarnation = 0;  // the sender's
  uint32_t epoch = 0;
  uint32_t task = 0;
  uint32_t attempt = 0;
  uint32_t sequence = 0;  // from 0, per attempt and owner
  uint64_t checksum = 0;
  uint64_t bytes = 0;  // of credit that the chunk takes: at least what its receiver holds for it; 0 in a manifest
  Layout layout;
  std::vector<rows::Extent> extents;
};

/// Binds a chunk's checksum to its place; manifests add these up.
uint64_t ChunkMark(uint32_t sequence, uint64_t checksum);
/// What a chunk has as its checksum that stays with its sender: its rows cross no wire, so that nobody would compare
/// one of them, but its mark is to be its own.
uint64_t ExtentsMark(const std::vector<rows::Extent>& extents);

std::string EncodeHeader(const ChunkHeader& header);
/// kPeerRefused where the bytes are not a header of this protocol version, or exceed a limit.
arrow::Result<ChunkHeader> DecodeHeader(std::string_view bytes);

/// The answer to one chunk or manifest, or of kind kCredit to the opening of a stream or a CreditRequest. `code` is a
/// sabot::Code, 0 for verified and stored.
struct Ack {
  MessageKind kind = MessageKind::kChunk;
  bool repeated = false;  // it was there already
  int32_t code = 0;
  uint32_t task = 0;
  uint32_t attempt = 0;
  uint32_t sequence = 0;
  uint64_t granted = 0;  // bytes of chunks that may be sent on this stream, counted from its opening
  std::string message;   // for people, where code is not 0
};

/// The acknowledgement that says of the message with this header that all is well.
Ack AckFor(const ChunkHeader& header);

std::string EncodeAck(const Ack& ack);
arrow::Result<Ack> DecodeAck(std::string_view bytes);

/// What a sender says that cannot go on with less than `total` granted: "SBTW", version, total. Answered by a kCredit.
std::string EncodeCreditRequest(uint64_t total);
bool IsCreditRequest(std::string_view bytes);
arrow::Result<uint64_t> DecodeCreditRequest(std::string_view bytes);

/// A plain Flight writer's last word: "SBTE" and how many rows it has sent.
arrow::Result<uint64_t> DecodeEnd(std::string_view bytes);

/// Beside each batch of a DoGet; the stream is whole only when a mark with `last` has come.
struct ReadMark {
  bool last = false;
  uint64_t sequence = 0;
  uint64_t rows = 0;         // so far, this batch included
  uint64_t content_sum = 0;  // so far
};

std::string EncodeReadMark(const ReadMark& mark);
arrow::Result<ReadMark> DecodeReadMark(std::string_view bytes);

/// Beside each batch of a share's stream: "SBTS", and instead of a content sum what its reader needs to compute one.
struct ShareMark {
  bool last = false;
  uint32_t task = 0;  // who sent these rows into the shuffle
  uint32_t sequence = 0;
  uint64_t rows = 0;      // so far, this batch included
  uint64_t checksum = 0;  // of this batch
};

std::string EncodeShareMark(const ShareMark& mark);
arrow::Result<ShareMark> DecodeShareMark(std::string_view bytes);

}  // namespace sabot::shuffle
