// SPDX-License-Identifier: Apache-2.0
// Time slices of the threads that compute together.
#pragma once

namespace fairlead {

// Asks for the shortest time slice for the calling thread: no larger share of the processor, but
// an earlier turn. Threads that wait for each other at every op lose a whole slice of their
// neighbour's whenever one of them waits for its turn, and give back what they do not use. Linux
// grants it from 6.12 on (sched_setattr(2), sched_runtime of SCHED_OTHER), older kernels ignore it;
// a refusal only costs speed beside busy processes. Other policies than SCHED_OTHER stay as they
// are.
void AskForShortSlice();

}  // namespace fairlead
