// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/host/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "kernels/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

// Saves what a call preserves on the stack, the stack's pointer in *save, and goes on with `load`.
extern "C" void fairlead_switch_stack(void** save, void* load);

#if defined(__x86_64__)
// System V ABI: rbx, rbp and r12 to r15 are preserved. Nobody here changes the control words.
asm(R"(
.text
.globl fairlead_switch_stack
.hidden fairlead_switch_stack
.type fairlead_switch_stack, @function
fairlead_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fairlead_switch_stack, .-fairlead_switch_stack
)");
#elif defined(__aarch64__)
// AAPCS64: x19 to x30 and the low halves of v8 to v15 are preserved.
asm(R"(
.text
.globl fairlead_switch_stack
.hidden fairlead_switch_stack
.type fairlead_switch_stack, %function
fairlead_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size fairlead_switch_stack, .-fairlead_switch_stack
)");
#else
#error "the SIMT executor's fibers know x86-64 and aarch64"
#endif

namespace fairlead::simt {
namespace {

#if defined(__SANITIZE_ADDRESS__)
thread_local const void* t_left_stack;  // bounds of the stack that was switched from
thread_local size_t t_left_bytes;
thread_local const void* t_own_stack;  // of the thread itself, learned at the first switch
thread_local size_t t_own_bytes;
#endif

// A stack that fairlead_switch_stack can load, and that goes on at `entry`.
void* FirstFrame(char* end, void (*entry)()) {
#if defined(__x86_64__)
  // Above the six registers: where to return to, then a return address of its own, none, so that
  // the pointer is aligned as after a call.
  void** frame = reinterpret_cast<void**>(end) - 8;
  std::memset(frame, 0, 8 * sizeof(void*));
  frame[6] = reinterpret_cast<void*>(entry);
#else
  void** frame = reinterpret_cast<void**>(end) - 20;
  std::memset(frame, 0, 20 * sizeof(void*));
  frame[11] = reinterpret_cast<void*>(entry);  // x30
#endif
  return frame;
}

}  // namespace

Fiber::Fiber(size_t stack_bytes, void (*entry)()) : stack_bytes_(stack_bytes), entry_(entry) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  mapping_bytes_ = stack_bytes + page;
  void* mapping = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  FAIRLEAD_CHECK(mapping != MAP_FAILED && "memory for a fiber's stack");
  FAIRLEAD_CHECK(mprotect(mapping, page, PROT_NONE) == 0);
  mapping_ = static_cast<char*>(mapping);
  stack_ = mapping_ + page;
  Restart();
}

Fiber::~Fiber() {
#if defined(__SANITIZE_THREAD__)
  if (mapping_ != nullptr) __tsan_destroy_fiber(sanitizer_);
#endif
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

void Fiber::Restart() {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack_, stack_bytes_);
  sanitizer_ = nullptr;
#elif defined(__SANITIZE_THREAD__)
  // Its record of calls that have not returned would grow with each start.
  if (sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);
  sanitizer_ = __tsan_create_fiber(0);
#endif
  stack_pointer_ = FirstFrame(stack_ + stack_bytes_, entry_);
}

void Fiber::Switch(Fiber& from, Fiber& to, [[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
  const bool thread = to.mapping_ == nullptr;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.sanitizer_,
                                 thread ? t_own_stack : to.stack_,
                                 thread ? t_own_bytes : to.stack_bytes_);
#elif defined(__SANITIZE_THREAD__)
  if (from.mapping_ == nullptr) from.sanitizer_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.sanitizer_, 0);
#endif
  fairlead_switch_stack(&from.stack_pointer_, to.stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.sanitizer_, &t_left_stack, &t_left_bytes);
#endif
}

void Fiber::Entered() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &t_left_stack, &t_left_bytes);
  if (t_own_stack == nullptr) {  // a fiber is entered from the thread itself the first time
    t_own_stack = t_left_stack;
    t_own_bytes = t_left_bytes;
  }
#endif
}

}  // namespace fairlead::simt
