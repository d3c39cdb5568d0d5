// SPDX-License-Identifier: Apache-2.0
#include "models/unigram.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "kernels/strings.h"

namespace fairlead {

absl::StatusOr<std::unique_ptr<TokenModel>> Unigram::Create(absl::Span<const Piece> piece,
                                                            const Options& options) {
  const auto size = static_cast<Token>(piece.size());
  if (options.unknown && (*options.unknown < 0 || *options.unknown >= size)) {
    return absl::InvalidArgumentError(
        StrCat("model.unk_id is ", *options.unknown, "; ids are from 0 to ", size - 1));
  }
  std::vector<bool> left_out(piece.size());
  for (const Token id : options.left_out) {
    if (id >= 0 && id < size) left_out[id] = true;
  }
  auto model = std::make_unique<Unigram>();
  model->unknown_ = options.unknown;
  if (options.byte_fallback) model->byte_.resize(256);
  double lowest = std::numeric_limits<double>::max();
  std::vector<UnigramLattice::Piece> known;
  for (Token id = 0; id < size; ++id) {
    lowest = std::min(lowest, piece[id].score);
    if (options.byte_fallback) {
      if (const auto byte = SpelledByte(piece[id].text)) model->byte_[*byte] = id;
    }
    if (left_out[id]) continue;
    // The unknown token's own text counts as unknown text.
    const Token known_id = id == options.unknown ? UnigramLattice::kUnknown : id;
    known.push_back({.text = piece[id].text, .id = known_id, .score = piece[id].score});
  }
  absl::StatusOr<UnigramLattice> lattice =
      UnigramLattice::Create(known, {.unknown_score = lowest - UnigramLattice::kUnknownPenalty});
  if (!lattice.ok()) return lattice.status();
  model->lattice_ = *std::move(lattice);
  return model;
}

void Unigram::Encode(std::string_view word, Workspace* workspace, std::vector<Token>* out) const {
  std::vector<UnigramLattice::Segment> segment;
  lattice_.Cut(word, workspace->cancelled, &segment);
  for (size_t i = 0; i < segment.size(); ++i) {
    if (segment[i].id != UnigramLattice::kUnknown) {
      out->push_back(segment[i].id);
      continue;
    }
    size_t last = i;
    while (last + 1 < segment.size() && segment[last + 1].id == UnigramLattice::kUnknown) ++last;
    AddUnknown(word.substr(segment[i].begin, segment[last].end - segment[i].begin), out);
    i = last;
  }
}

void Unigram::AddUnknown(std::string_view text, std::vector<Token>* out) const {
  const auto token = [this](char byte) { return byte_[static_cast<unsigned char>(byte)]; };
  if (!byte_.empty() &&
      std::all_of(text.begin(), text.end(), [&](char byte) { return token(byte).has_value(); })) {
    for (const char byte : text) out->push_back(*token(byte));
  } else if (unknown_) {
    out->push_back(*unknown_);
  }
}

}  // namespace fairlead
