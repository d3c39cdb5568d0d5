// SPDX-License-Identifier: Apache-2.0
// A backend library of another build: it must be refused before it is asked for anything.
#include "kernels/backend.h"

extern "C" [[gnu::visibility("default")]] const fairlead::BackendApi fairlead_backend = {
    .id = "0.0.0-other", .open = nullptr};
