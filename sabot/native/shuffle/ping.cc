#include "sabot/native/shuffle/ping.h"

#include "sabot/native/shuffle/byte_codec.h"
#include "sabot/native/shuffle/chunk_header.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

constexpr std::string_view kPingMagic = "SBTP";

std::string EncodePing(uint64_t incarnation) {
  ByteWriter out;
  out.PutBytes(kPingMagic);
  out.Put(kProtocolVersion);
  out.Put(incarnation);
  return out.Take();
}

arrow::Result<uint64_t> DecodePing(std::string_view bytes) {
  ByteReader in(bytes);
  std::string_view magic;
  uint16_t version = 0;
  uint64_t incarnation = 0;
  const bool whole = in.GetBytes(kPingMagic.size(), &magic) && magic == kPingMagic && in.Get(&version) &&
                     version == kProtocolVersion && in.Get(&incarnation) && in.left() == 0;
  if (whole) return incarnation;
  return MakeStatus(Code::kPeerRefused, "The answer to a ping is not of Sabot's shuffle protocol version " +
                                            std::to_string(kProtocolVersion) + ". Run the same Sabot everywhere.");
}

}  // namespace sabot::shuffle
