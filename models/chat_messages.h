// SPDX-License-Identifier: Apache-2.0
// What transformers' apply_chat_template does around a template, beside what every rendering has
// (chat_template.h). Any thread; no state.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "models/chat_template.h"
#include "models/json.h"

namespace fairlead {

// The parts [{"type": "text", "text": ...}] with these keys alone; null where there is anything
// else.
Json OnlyTextParts(const Json& parts);

// Whether the template prints all texts of a content that is a list of parts, in messages of this
// role, and not the list itself. `variables`: what it will be rendered with; their `messages` are
// replaced. Costs a rendering.
bool TakesTextParts(const ChatTemplate& chat_template, const std::string& role, Json& variables);

// The texts of such a list, joined by line ends: for templates that do not.
std::string JoinedTextParts(const Json& parts);

// continue_final_message: the prompt ends behind the content of the last message (of its last part
// that has a text), where the model goes on. Spaces at its end stay where the template keeps them.
// kFailedPrecondition: there is no content, or the template does not print it.
absl::StatusOr<RenderedPrompt> RenderUpToFinalContent(const ChatTemplate& chat_template,
                                                      Json variables, absl::Time now = absl::Now());

}  // namespace fairlead
