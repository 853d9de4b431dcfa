#include "sabot/native/shuffle/ticket.h"

#include <charconv>
#include <limits>

#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

constexpr std::string_view kPublishedPrefix = "sabot:1:published:";
constexpr std::string_view kShufflePrefix = "sabot:1:shuffle:";
constexpr std::string_view kHexDigits = "0123456789ABCDEF";

bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
         c == '.' || c == '~';
}

arrow::Status NoTicket(std::string_view text) {
  return MakeStatus(Code::kUsage, "The ticket \"" + std::string(text.substr(0, 200)) +
                                      "\" is not one of Sabot's: write sabot:1:published:<name>:<index> or "
                                      "sabot:1:shuffle:<id>:<partition>, the name percent-encoded.");
}

}  // namespace

std::string PercentEncode(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    if (IsPlain(c)) {
      encoded.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded += {'%', kHexDigits[byte >> 4], kHexDigits[byte & 15]};
    }
  }
  return encoded;
}

bool PercentDecode(std::string_view text, std::string* decoded) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded->push_back(text[i]);
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= text.size()) return false;
    const auto parsed = std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
    if (parsed.ptr != text.data() + i + 3) return false;
    decoded->push_back(static_cast<char>(value));
    i += 2;
  }
  return true;
}

std::string EncodeTicket(const TicketParts& parts) {
  std::string text(parts.kind == TicketKind::kPublished ? kPublishedPrefix : kShufflePrefix);
  text += PercentEncode(parts.name);
  return text + ":" + std::to_string(parts.index);
}

arrow::Result<TicketParts> DecodeTicket(std::string_view text) {
  TicketParts parts;
  std::string_view rest = text;
  if (rest.starts_with(kPublishedPrefix)) {
    rest.remove_prefix(kPublishedPrefix.size());
  } else if (rest.starts_with(kShufflePrefix)) {
    parts.kind = TicketKind::kShuffle;
    rest.remove_prefix(kShufflePrefix.size());
  } else {
    return NoTicket(text);
  }
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || !PercentDecode(rest.substr(0, colon), &parts.name)) return NoTicket(text);
  const auto index = DecodeNumber(rest.substr(colon + 1), "index");
  if (!index.ok() || parts.name.size() > kNameBytesMax) return NoTicket(text);
  parts.index = *index;
  return parts;
}

arrow::Result<int64_t> DecodeNumber(std::string_view text, const std::string& what) {
  int64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  if (whole && value >= 0 && value <= std::numeric_limits<int32_t>::max()) return value;
  return MakeStatus(Code::kUsage, "The " + what + " \"" + std::string(text.substr(0, 40)) +
                                      "\" is no whole number from 0 to 2147483647.");
}

}  // namespace sabot::shuffle
