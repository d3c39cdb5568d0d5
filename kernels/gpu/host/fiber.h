// SPDX-License-Identifier: Apache-2.0
// Fibers: stacks that one operating-system thread switches between. The SIMT executor runs each
// GPU thread of a block on one. A fiber runs on one thread from its start, or Restart, to its
// end.
#pragma once

#include <cstddef>

namespace fairlead::simt {

// A context to switch from and to: a thread's own (made empty), or a fiber's.
class Fiber {
 public:
  Fiber() = default;  // the calling thread's context
  // `entry` never returns: it switches away for the last time. Aborts when there is no memory.
  Fiber(size_t stack_bytes, void (*entry)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Continues `to`; returns when something switches back to `from`, the running one.
  static void Switch(Fiber& from, Fiber& to) { Switch(from, to, false); }
  // `from`, a fiber, has ended: it may only be restarted.
  static void SwitchForGood(Fiber& from, Fiber& to) { Switch(from, to, true); }
  // To be called first by `entry`.
  static void Entered();
  // Makes a fiber that was left start at `entry` again with an empty stack.
  void Restart();

  bool OnStack(const void* address) const {
    return address >= stack_ && address < stack_ + stack_bytes_;
  }

 private:
  static void Switch(Fiber& from, Fiber& to, bool for_good);

  char* mapping_ = nullptr;  // a guard page, then the stack
  size_t mapping_bytes_ = 0;
  char* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  void (*entry_)() = nullptr;
  void* stack_pointer_ = nullptr;
  void* sanitizer_ = nullptr;  // its fake stack or its fiber
};

}  // namespace fairlead::simt
