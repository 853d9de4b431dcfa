// What is sent beside rows: the bytes of docs/protocol.md, and nothing that is cut short or claims too much is taken.
#include "sabot/native/shuffle/chunk_header.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace sabot::shuffle {
namespace {

std::string FromHex(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); i += 2) bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  return bytes;
}

const std::string kHeader = FromHex(
    "534254430300010307000000000000008877665544332211010000000200000003000000040000000100000001000100001000000000000005"
    "00000006000000000000000900000000000000000073");
const std::string kAck = FromHex("5342544103000100050000000200000003000000040000000020000000000000040066756c6c");
const std::string kRequest = FromHex("5342545703000000100000000000");

ChunkHeader Shown() {
  ChunkHeader header;
  header.shuffle_id = "s";
  header.incarnation = 7;
  header.checksum = 0x1122334455667788;
  header.epoch = 1;
  header.task = 2;
  header.attempt = 3;
  header.sequence = 4;
  header.bytes = 4096;
  header.layout.by_hash = true;
  header.layout.key_columns = {0};
  header.extents = {{5, 6, 9}};
  return header;
}

TEST(ChunkHeader, IsTheBytesThatTheProtocolShows) {
  EXPECT_EQ(EncodeHeader(Shown()), kHeader);
  EXPECT_EQ(EncodeHeader(DecodeHeader(kHeader).ValueOrDie()), kHeader);
}

TEST(ChunkHeader, AcknowledgementIsTheBytesThatTheProtocolShows) {
  Ack ack = AckFor(Shown());
  ack.code = 5;
  ack.granted = 8192;
  ack.message = "full";
  EXPECT_EQ(EncodeAck(ack), kAck);
  EXPECT_EQ(EncodeAck(DecodeAck(kAck).ValueOrDie()), kAck);
}

TEST(ChunkHeader, RequestForCreditIsTheBytesThatTheProtocolShows) {
  EXPECT_EQ(EncodeCreditRequest(1 << 20), kRequest);
  EXPECT_EQ(DecodeCreditRequest(kRequest).ValueOrDie(), 1 << 20);
}

TEST(ChunkHeader, CutShortOrDrawnOutNothingIsTaken) {
  for (const std::string& bytes : {kHeader, kAck, kRequest}) {
    for (size_t length = 0; length <= bytes.size() + 1; ++length) {
      if (length == bytes.size()) continue;
      const std::string other = (bytes + std::string(1, '\0')).substr(0, length);
      EXPECT_FALSE(DecodeHeader(other).ok());
      EXPECT_FALSE(DecodeAck(other).ok());
      EXPECT_FALSE(DecodeCreditRequest(other).ok());
    }
  }
}

TEST(ChunkHeader, ClaimsOfMoreThanThereIsAllocateNothing) {
  for (const uint32_t claimed : {(1u << 20) - 1, (1u << 20) + 1, ~0u}) {  // 24 MB, or 100 GB
    std::string bytes = kHeader;
    bytes.replace(40, sizeof claimed, reinterpret_cast<const char*>(&claimed), sizeof claimed);
    const arrow::Status status = DecodeHeader(bytes).status();
    EXPECT_NE(status.message().find("could not be read"), std::string::npos);
  }
}

TEST(ChunkHeader, RandomChangesAreRefusedOrReadAsWhatTheySay) {
  std::mt19937 random(std::random_device{}());
  for (int i = 0; i < 200'000; ++i) {
    std::string bytes = kHeader;
    for (uint32_t change = random() % 4; change > 0; --change) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const auto header = DecodeHeader(bytes);
    if (header.ok()) {
      ASSERT_EQ(EncodeHeader(*header), bytes);
    }
  }
}

}  // namespace
}  // namespace sabot::shuffle
