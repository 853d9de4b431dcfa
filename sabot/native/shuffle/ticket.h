// Tickets: what a DoGet asks for, as text that a person can write (docs/protocol.md).
#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace sabot::shuffle {

inline constexpr size_t kNameBytesMax = 512;  // of published names, as of shuffle ids

enum class TicketKind { kPublished, kShuffle };

struct TicketParts {
  TicketKind kind = TicketKind::kPublished;
  std::string name;   // published name or shuffle id
  int64_t index = 0;  // part or partition
};

/// All but letters, digits, '-', '_', '.' and '~' as %XX.
std::string PercentEncode(std::string_view text);
/// False where a '%' is not followed by two digits.
bool PercentDecode(std::string_view text, std::string* decoded);

/// "sabot:1:published:<name>:<index>" or "sabot:1:shuffle:<id>:<partition>", names percent-encoded.
std::string EncodeTicket(const TicketParts& parts);
/// kUsage with the two forms where `text` is neither.
arrow::Result<TicketParts> DecodeTicket(std::string_view text);
/// A whole decimal number of at most INT32_MAX; kUsage naming `what` otherwise.
arrow::Result<int64_t> DecodeNumber(std::string_view text, const std::string& what);

}  // namespace sabot::shuffle
