// SPDX-License-Identifier: Apache-2.0
#include "models/sentencepiece_model.h"

#include <google/protobuf/io/coded_stream.h>

#include <utility>

#include "absl/status/status.h"
#include "kernels/strings.h"
#include "models/detokenizer.h"
#include "models/vocabulary.h"
#include "sentencepiece/model.pb.h"

namespace fairlead {
namespace {

constexpr size_t kMaxFileBytes = 64 << 20;  // XLM-V's has 18 MB

using google::protobuf::io::CodedInputStream;

absl::Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(StrCat("SentencePiece model: ", what));
}

// A field's number and how it is encoded.
struct Field {
  uint32_t number;
  uint32_t wire_type;
};
constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kFixed32 = 5;

// Groups, which the format has given up, are not skipped: nothing nests.
bool SkipField(uint32_t wire_type, CodedInputStream* in) {
  uint64_t number;
  uint32_t size;
  switch (wire_type) {
    case kVarint:
      return in->ReadVarint64(&number);
    case kFixed64:
      return in->Skip(8);
    case kBytes:
      return in->ReadVarint32(&size) && size <= static_cast<uint32_t>(INT32_MAX) &&
             in->Skip(static_cast<int>(size));
    case kFixed32:
      return in->Skip(4);
    default:
      return false;
  }
}

// A message with its size before it; what it holds is added to `message`.
template <typename Message>
bool ReadMessage(CodedInputStream* in, Message* message) {
  int size;
  if (!in->ReadVarintSizeAsInt(&size)) return false;
  const CodedInputStream::Limit limit = in->PushLimit(size);
  const bool read = message->MergePartialFromCodedStream(in) && in->BytesUntilLimit() == 0;
  in->PopLimit(limit);
  return read;
}

struct Messages {
  sentencepiece::TrainerSpec trainer;
  sentencepiece::NormalizerSpec normalizer;
  sentencepiece::NormalizerSpec denormalizer;
};

absl::Status AddPiece(const sentencepiece::Piece& piece, SentencePieceFile* file) {
  const size_t id = file->parts.piece.size();
  if (id >= Vocabulary::kMaxTokens)
    return Malformed(StrCat("more than ", Vocabulary::kMaxTokens, " pieces"));
  if (piece.text().size() > Vocabulary::kMaxTokenBytes) {
    return Malformed(StrCat("piece ", id, " has ", piece.text().size(),
                            " bytes; allowed: ", Vocabulary::kMaxTokenBytes));
  }
  if (piece.text().empty()) return Malformed(StrCat("piece ", id, " has no text"));
  if (piece.type() < static_cast<int>(PieceType::kNormal) ||
      piece.type() > static_cast<int>(PieceType::kByte)) {
    return Malformed(StrCat("piece ", id, " is of type ", piece.type(), "; known: 1 to 6"));
  }
  file->parts.piece.push_back({.text = file->text.emplace_back(piece.text()),
                               .score = piece.score(),
                               .type = static_cast<PieceType>(piece.type())});
  return absl::OkStatus();
}

absl::Status ReadFields(std::string_view bytes, SentencePieceFile* file, Messages* messages) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()),
                      static_cast<int>(bytes.size()));
  const auto cut = [&] {
    return Malformed(StrCat("is not valid at byte ", in.CurrentPosition(), " of ", bytes.size()));
  };
  sentencepiece::Piece piece;
  while (true) {
    const uint32_t tag = in.ReadTag();
    if (tag == 0) break;
    const Field field = {tag >> 3, tag & 7};
    bool read = false;
    if (field.wire_type != kBytes || field.number > 5 || field.number == 4) {
      read = SkipField(field.wire_type, &in);
    } else if (field.number == 1) {
      piece.Clear();
      read = ReadMessage(&in, &piece);
      if (read) {
        if (absl::Status status = AddPiece(piece, file); !status.ok()) return status;
      }
    } else if (field.number == 2) {
      read = ReadMessage(&in, &messages->trainer);
    } else {
      read = ReadMessage(&in, field.number == 3 ? &messages->normalizer : &messages->denormalizer);
    }
    if (!read) return cut();
  }
  return in.CurrentPosition() == static_cast<int>(bytes.size()) ? absl::OkStatus() : cut();
}

absl::Status ReadModelType(int type, SegmentationModel* model) {
  constexpr int kUnigram = 1;
  constexpr int kBpe = 2;
  constexpr int kCharacters = 4;
  switch (type) {
    case kUnigram:
      *model = SegmentationModel::kUnigram;
      return absl::OkStatus();
    case kBpe:
      *model = SegmentationModel::kBpe;
      return absl::OkStatus();
    case kCharacters:
      *model = SegmentationModel::kCharacters;
      return absl::OkStatus();
    default:
      return absl::UnimplementedError(StrCat("SentencePiece model: model_type ", type,
                                             " is unknown; known: 1 (unigram), 2 (bpe), 4 (char)"));
  }
}

std::optional<Token> FindControl(const SentencePieceParts& parts, std::string_view name) {
  for (size_t id = 0; id < parts.piece.size(); ++id) {
    const SentencePieceParts::Piece& piece = parts.piece[id];
    if (piece.type == PieceType::kControl && piece.text == name) return static_cast<Token>(id);
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<SentencePieceFile> ParseSentencePieceModel(std::string_view bytes) {
  if (bytes.size() > kMaxFileBytes)
    return Malformed(StrCat("has ", bytes.size(), " bytes; allowed: ", kMaxFileBytes));
  SentencePieceFile file;
  Messages messages;
  if (absl::Status status = ReadFields(bytes, &file, &messages); !status.ok()) return status;
  const sentencepiece::TrainerSpec& trainer = messages.trainer;
  const sentencepiece::NormalizerSpec& normalizer = messages.normalizer;
  SentencePieceParts& parts = file.parts;
  if (absl::Status status = ReadModelType(trainer.model_type(), &parts.model); !status.ok())
    return status;
  if (!messages.denormalizer.precompiled_charsmap().empty())
    return absl::UnimplementedError("SentencePiece model: a denormalizer_spec with rules");
  parts.byte_fallback = trainer.byte_fallback();
  parts.unknown_surface = trainer.unk_surface();
  if (!IsValidUtf8(parts.unknown_surface)) return Malformed("unk_surface is not valid UTF-8");
  absl::StatusOr<Charsmap> charsmap = Charsmap::Create(normalizer.precompiled_charsmap());
  if (!charsmap.ok()) return charsmap.status();
  parts.normalizer.charsmap = *std::move(charsmap);
  parts.normalizer.add_dummy_prefix = normalizer.add_dummy_prefix();
  parts.normalizer.remove_extra_whitespaces = normalizer.remove_extra_whitespaces();
  parts.normalizer.escape_whitespaces = normalizer.escape_whitespaces();
  parts.normalizer.treat_whitespace_as_suffix = trainer.treat_whitespace_as_suffix();
  file.bos = FindControl(parts, trainer.bos_piece());
  file.eos = FindControl(parts, trainer.eos_piece());
  return file;
}

}  // namespace fairlead
