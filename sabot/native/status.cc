#include "sabot/native/status.h"

#include <charconv>
#include <optional>
#include <string_view>

namespace sabot {
namespace {

constexpr std::string_view kOpen = "[sabot:";
constexpr std::string_view kClose = "[/sabot]";
// gRPC drops a status whose metadata has more than 8 KiB, and carries the message twice: escaped and in base64.
constexpr size_t kWireMessageBytesMax = 1536;
constexpr std::string_view kCut = " ... ";
constexpr char kDetailType[] = "sabot::Code";

class CodeDetail : public arrow::StatusDetail {
 public:
  explicit CodeDetail(Code code) : code_(code) {}
  const char* type_id() const override { return kDetailType; }
  std::string ToString() const override { return "sabot code " + std::to_string(static_cast<int32_t>(code_)); }
  Code code() const { return code_; }

 private:
  Code code_;
};

arrow::StatusCode ArrowCode(Code code) {
  switch (code) {
    case Code::kUsage:
    case Code::kUnhashableKey:
      return arrow::StatusCode::Invalid;
    case Code::kLimit:
      return arrow::StatusCode::CapacityError;
    case Code::kCancelled:
      return arrow::StatusCode::Cancelled;
    case Code::kPeerLost:
    case Code::kPeerRefused:
    case Code::kIntegrity:
      return arrow::StatusCode::IOError;
    default:
      return arrow::StatusCode::UnknownError;
  }
}

struct WireParts {
  Code code;
  std::string_view message;
};

std::optional<WireParts> FindWireParts(std::string_view text) {
  const size_t open = text.find(kOpen);
  if (open == std::string_view::npos) return std::nullopt;
  const char* digits = text.data() + open + kOpen.size();
  int32_t code = 0;
  const auto parsed = std::from_chars(digits, text.data() + text.size(), code);
  if (parsed.ec != std::errc() || parsed.ptr == text.data() + text.size() || *parsed.ptr != ']') return std::nullopt;
  if (code <= 0 || code > static_cast<int32_t>(Code::kTaskFailed)) return std::nullopt;
  const size_t start = static_cast<size_t>(parsed.ptr + 1 - text.data());
  const size_t close = text.find(kClose, start);
  const size_t length = close == std::string_view::npos ? std::string_view::npos : close - start;
  return WireParts{static_cast<Code>(code), text.substr(start, length)};
}

const CodeDetail* DetailOf(const arrow::Status& status) {
  const auto& detail = status.detail();
  if (detail == nullptr || std::string_view(detail->type_id()) != kDetailType) return nullptr;
  return static_cast<const CodeDetail*>(detail.get());
}

}  // namespace

arrow::Status MakeStatus(Code code, std::string message) {
  return arrow::Status(ArrowCode(code), std::move(message), std::make_shared<CodeDetail>(code));
}

arrow::Status MakeOutOfMemory(std::string message) {
  return arrow::Status(arrow::StatusCode::OutOfMemory, std::move(message), std::make_shared<CodeDetail>(Code::kLimit));
}

arrow::Status MakeNoThread(const std::string& what) {
  return MakeStatus(Code::kLimit, what + ": the system gave no more threads. Raise its limit (ulimit -u, or the " +
                                      "container's), or run fewer jobs at a time (limit=threads of this process)");
}

Code CodeOf(const arrow::Status& status) {
  if (const CodeDetail* detail = DetailOf(status)) return detail->code();
  if (const auto parts = FindWireParts(status.message())) return parts->code;
  return Code::kOther;
}

std::string PlainMessage(const arrow::Status& status) {
  if (DetailOf(status) != nullptr) return status.message();  // ours: what it quotes is not a peer's word
  if (const auto parts = FindWireParts(status.message())) return std::string(parts->message);
  return status.message();
}

std::string ShortMessage(const std::string& message, size_t bytes_max) {
  if (message.size() <= bytes_max) return message;
  const auto inside = [&](size_t at) { return (static_cast<unsigned char>(message[at]) & 0xC0) == 0x80; };
  const size_t kept = bytes_max - kCut.size();
  size_t head = kept / 2;
  size_t tail = message.size() - (kept - head);
  while (head > 0 && inside(head)) --head;
  while (tail < message.size() && inside(tail)) ++tail;
  return message.substr(0, head) + std::string(kCut) + message.substr(tail);
}

arrow::Status ForWire(const arrow::Status& status) {
  const CodeDetail* detail = DetailOf(status);
  if (detail == nullptr) return status;
  std::string text = std::string(kOpen) + std::to_string(static_cast<int32_t>(detail->code())) + "]" +
                     ShortMessage(status.message(), kWireMessageBytesMax) + std::string(kClose);
  return arrow::Status(status.code(), std::move(text));
}

}  // namespace sabot
