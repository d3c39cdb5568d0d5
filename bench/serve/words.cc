// SPDX-License-Identifier: Apache-2.0
#include <iterator>

#include "bench/serve/workload.h"

namespace fairlead::serve_bench {
namespace {

// Short and common, so that byte-pair vocabularies hold each of them, with its space, as one token.
constexpr const char* kWords[] = {
    "time",   "year",    "people",  "way",       "day",      "man",     "thing",    "woman",
    "life",   "child",   "world",   "school",    "state",    "family",  "group",    "country",
    "hand",   "part",    "place",   "case",      "week",     "company", "system",   "question",
    "work",   "number",  "night",   "point",     "home",     "water",   "room",     "mother",
    "area",   "money",   "story",   "fact",      "month",    "lot",     "right",    "study",
    "book",   "eye",     "job",     "word",      "business", "issue",   "side",     "kind",
    "head",   "house",   "service", "friend",    "father",   "power",   "hour",     "game",
    "line",   "end",     "member",  "law",       "car",      "city",    "name",     "team",
    "minute", "idea",    "body",    "back",      "parent",   "face",    "others",   "level",
    "office", "door",    "health",  "person",    "art",      "war",     "history",  "party",
    "result", "change",  "morning", "reason",    "research", "girl",    "guy",      "moment",
    "air",    "teacher", "force",   "education", "foot",     "boy",     "age",      "policy",
    "music",  "market",  "sense",   "nation",    "plan",     "college", "interest", "death",
    "course", "effect",  "use",     "class",     "control",  "field",   "good",     "new",
    "first",  "last",    "long",    "great",     "little",   "own",     "other",    "old",
    "big",    "high",    "small",   "large",     "next",     "early",   "young",    "few",
    "public", "same",
};

}  // namespace

std::string RandomWords(Rng& rng, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    text += kWords[UniformInt(rng, 0, static_cast<int>(std::size(kWords)) - 1)];
  }
  return text;
}

}  // namespace fairlead::serve_bench
