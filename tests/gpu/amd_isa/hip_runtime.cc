// SPDX-License-Identifier: Apache-2.0
// Stands in for libamdhip64.so in tests: one GPU whose memory is host memory and whose kernels
// another program runs. So libfairlead_hip.so is tested as it is shipped. By environment variables,
// which are read at each call:
//   FAIRLEAD_TEST_HIP_ARCHITECTURE  what the GPU is: "gfx942"; absent: there is none
//   FAIRLEAD_TEST_HIP_FAULT         "driver": hipGetDeviceCount fails; "memory": none is left;
//                                   "lost": waiting fails
//   FAIRLEAD_AMD_RUNNER             the program. It is started with three more arguments, a file
//                                   descriptor of the GPU's memory, the address that it has here
//                                   and must have there, and its bytes. It reads lines and answers
//                                   each by "ok VALUE" or "error WORDS":
//     size FILE KERNEL                                          bytes of the kernel's argument
//     run FILE KERNEL GRID_X GRID_Y GRID_Z THREADS SHARED HEX   seconds; HEX: the argument
// Used by one thread.
#include <hip/hip_runtime_api.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace {

constexpr size_t kMemoryBytes = size_t{16} << 30;
char* const kMemory = reinterpret_cast<char*>(uintptr_t{0x200000000000});

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}
bool Fails(std::string_view how) { return Variable("FAIRLEAD_TEST_HIP_FAULT") == how; }

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "hip_runtime: %s\n", what.c_str());
  std::abort();
}

struct Kernel {
  const void* bundle;
  std::string name;
  int launches = 0;
  int argument_bytes = -1;
};

struct State {
  std::map<const void*, Kernel> kernels;  // by the host's function
  std::map<const void*, std::string> files;
  int memory_file = -1;
  size_t used = 0;  // memory is never given out twice: what is freed is zero, and nobody's
  FILE* to_runner = nullptr;
  FILE* from_runner = nullptr;
  hipError_t last = hipSuccess;
  std::string failures;
};
State& Get() {
  static auto* state = new State;
  return *state;
}

void MapMemory() {
  State& state = Get();
  if (state.memory_file >= 0) return;
  state.memory_file = memfd_create("gpu", 0);
  if (state.memory_file < 0 || ftruncate(state.memory_file, kMemoryBytes) != 0 ||
      mmap(kMemory, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
           state.memory_file, 0) != kMemory) {
    Die("cannot map the GPU's memory");
  }
}

// The bundle's code object for the GPU's architecture, in a file of its own.
const std::string& FileOf(const void* bundle) {
  std::string& file = Get().files[bundle];
  if (!file.empty()) return file;
  const char* at = static_cast<const char*>(bundle);
  constexpr std::string_view kMagic = "__CLANG_OFFLOAD_BUNDLE__";
  if (std::memcmp(at, kMagic.data(), kMagic.size()) != 0) Die("a bundle of an unknown form");
  const std::string architecture = "--" + Variable("FAIRLEAD_TEST_HIP_ARCHITECTURE");
  uint64_t count;
  std::memcpy(&count, at + 24, 8);
  const char* entry = at + 32;
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t field[3];  // offset, bytes, bytes of the name that follows
    std::memcpy(field, entry, sizeof(field));
    const std::string_view name(entry + sizeof(field), field[2]);
    entry += sizeof(field) + field[2];
    if (!name.ends_with(architecture)) continue;
    file = Variable("TEST_TMPDIR") + "/code" + std::to_string(Get().files.size()) + ".hsaco";
    FILE* out = std::fopen(file.c_str(), "wb");
    if (out == nullptr || std::fwrite(at + field[0], 1, field[1], out) != field[1] ||
        std::fclose(out) != 0) {
      Die("cannot write " + file);
    }
    return file;
  }
  Die("no code for " + architecture.substr(2));
}

void StartRunner() {
  const std::string command = Variable("FAIRLEAD_AMD_RUNNER");
  if (command.empty()) Die("FAIRLEAD_AMD_RUNNER is not set");
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) Die("no socket");
  std::ostringstream shell;
  shell << "exec " << command << ' ' << Get().memory_file << ' '
        << reinterpret_cast<uintptr_t>(kMemory) << ' ' << kMemoryBytes;
  if (fork() == 0) {
    dup2(ends[1], 0);
    dup2(ends[1], 1);
    close(ends[0]);
    execl("/bin/sh", "sh", "-c", shell.str().c_str(), nullptr);
    _exit(127);
  }
  close(ends[1]);
  Get().to_runner = fdopen(ends[0], "w");
  Get().from_runner = fdopen(dup(ends[0]), "r");
}

// What stands after "ok "; empty: it could not, as is noted for the test.
std::string Ask(const std::string& question) {
  if (Get().to_runner == nullptr) StartRunner();
  std::fprintf(Get().to_runner, "%s\n", question.c_str());
  std::fflush(Get().to_runner);
  char line[1024];
  if (std::fgets(line, sizeof(line), Get().from_runner) == nullptr) {
    Die("the runner has ended at " + question.substr(0, 300));
  }
  std::string answer = line;
  answer.resize(answer.find_last_not_of('\n') + 1);
  if (answer.starts_with("ok ")) return answer.substr(3);
  Get().failures += answer + ", asked to " + question.substr(0, 300) + "\n";
  return "";
}

hipError_t Result(hipError_t error) {
  if (error != hipSuccess) Get().last = error;
  return error;
}

}  // namespace

extern "C" {

// Lines "LAUNCHES KERNEL" of all kernels of the library, for the test to read.
std::string* FairleadHipLaunches() {
  static std::string text;
  text.clear();
  for (const auto& [function, kernel] : Get().kernels) {
    text += std::to_string(kernel.launches) + " " + kernel.name + "\n";
  }
  return &text;
}

// What the runner could not do since the last call, a line each; those launches had no effect.
std::string* FairleadHipFailures() {
  static std::string text;
  text = std::exchange(Get().failures, "");
  return &text;
}

void** __hipRegisterFatBinary(const void* data) {
  struct Wrapper {
    uint32_t magic, version;
    const void* binary;
    void* unused;
  };
  return reinterpret_cast<void**>(const_cast<void*>(static_cast<const Wrapper*>(data)->binary));
}
void __hipUnregisterFatBinary(void**) {}
void __hipRegisterFunction(void** bundle, const void* function, char*, const char* name, unsigned,
                           void*, void*, void*, void*, int*) {
  Get().kernels[function] = {.bundle = bundle, .name = name};
}
hipError_t __hipPopCallConfiguration(dim3*, dim3*, size_t*, hipStream_t*) {
  return hipErrorNotSupported;
}

hipError_t hipGetDeviceCount(int* count) {
  *count = 0;
  if (Fails("driver")) return Result(hipErrorInsufficientDriver);
  if (Variable("FAIRLEAD_TEST_HIP_ARCHITECTURE").empty()) return Result(hipErrorNoDevice);
  *count = 1;
  return hipSuccess;
}
hipError_t hipSetDevice(int device) {
  return Result(device == 0 ? hipSuccess : hipErrorInvalidDevice);
}
hipError_t hipGetDeviceProperties(hipDeviceProp_t* properties, int) {
  *properties = {};
  const std::string architecture = Variable("FAIRLEAD_TEST_HIP_ARCHITECTURE");
  std::snprintf(properties->name, sizeof(properties->name), "Emulated GPU");
  std::snprintf(properties->gcnArchName, sizeof(properties->gcnArchName), "%s:sramecc+:xnack-",
                architecture.c_str());
  properties->warpSize = architecture.starts_with("gfx9") ? 64 : 32;
  properties->totalGlobalMem = kMemoryBytes;
  properties->multiProcessorCount = 1;
  return hipSuccess;
}
hipError_t hipRuntimeGetVersion(int* version) {
  *version = HIP_VERSION;
  return hipSuccess;
}
const char* hipGetErrorName(hipError_t error) {
  switch (error) {
    case hipErrorInsufficientDriver:
      return "hipErrorInsufficientDriver";
    case hipErrorIllegalState:
      return "hipErrorIllegalState";
    default:
      return "hipError";
  }
}
const char* hipGetErrorString(hipError_t) { return "words of the driver"; }
hipError_t hipGetLastError() { return std::exchange(Get().last, hipSuccess); }

hipError_t hipMemGetInfo(size_t* free, size_t* total) {
  *free = kMemoryBytes - Get().used;
  *total = kMemoryBytes;
  return hipSuccess;
}
hipError_t hipDeviceGetPCIBusId(char* bus, int bytes, int) {
  std::snprintf(bus, static_cast<size_t>(bytes), "ffff:00:00.0");  // a place that no machine has
  return hipSuccess;
}
hipError_t hipMalloc(void** data, size_t bytes) {
  MapMemory();
  const size_t whole = (bytes + 4095) / 4096 * 4096;
  if (Fails("memory") || whole > kMemoryBytes - Get().used) return Result(hipErrorOutOfMemory);
  *data = kMemory + Get().used;
  Get().used += whole;
  return hipSuccess;
}
hipError_t hipFree(void*) { return hipSuccess; }
hipError_t hipHostMalloc(void** data, size_t bytes, unsigned) {
  *data = std::malloc(bytes);
  return hipSuccess;
}
hipError_t hipHostFree(void* data) {
  std::free(data);
  return hipSuccess;
}
hipError_t hipMemset(void* data, int value, size_t bytes) {
  std::memset(data, value, bytes);
  return hipSuccess;
}
hipError_t hipMemcpyAsync(void* to, const void* from, size_t bytes, hipMemcpyKind, hipStream_t) {
  std::memcpy(to, from, bytes);
  return hipSuccess;
}

hipError_t hipStreamCreateWithFlags(hipStream_t* stream, unsigned) {
  *stream = reinterpret_cast<hipStream_t>(Get().kernels.size());
  return hipSuccess;
}
hipError_t hipStreamDestroy(hipStream_t) { return hipSuccess; }
hipError_t hipStreamSynchronize(hipStream_t) {
  return Result(Fails("lost") ? hipErrorIllegalState : hipSuccess);
}

// Work is done at once: every event has happened.
hipError_t hipEventCreateWithFlags(hipEvent_t* event, unsigned) {
  *event = nullptr;
  return hipSuccess;
}
hipError_t hipEventDestroy(hipEvent_t) { return hipSuccess; }
hipError_t hipEventRecord(hipEvent_t, hipStream_t) { return hipSuccess; }
hipError_t hipStreamWaitEvent(hipStream_t, hipEvent_t, unsigned) { return hipSuccess; }
hipError_t hipEventSynchronize(hipEvent_t) { return hipStreamSynchronize(nullptr); }
hipError_t hipEventElapsedTime(float* milliseconds, hipEvent_t, hipEvent_t) {
  *milliseconds = 0;
  return hipSuccess;
}

// Kernels run one by one here.
hipError_t hipStreamBeginCapture(hipStream_t, hipStreamCaptureMode) {
  return Result(hipErrorNotSupported);
}
hipError_t hipStreamEndCapture(hipStream_t, hipGraph_t*) { return Result(hipErrorNotSupported); }
hipError_t hipGraphInstantiate(hipGraphExec_t*, hipGraph_t, hipGraphNode_t*, char*, size_t) {
  return Result(hipErrorNotSupported);
}
hipError_t hipGraphDestroy(hipGraph_t) { return Result(hipErrorNotSupported); }
hipError_t hipGraphUpload(hipGraphExec_t, hipStream_t) { return Result(hipErrorNotSupported); }
hipError_t hipGraphLaunch(hipGraphExec_t, hipStream_t) { return Result(hipErrorNotSupported); }
hipError_t hipGraphExecDestroy(hipGraphExec_t) { return Result(hipErrorNotSupported); }

hipError_t hipLaunchKernel(const void* function, dim3 grid, dim3 block, void** args, size_t shared,
                           hipStream_t) {
  const auto found = Get().kernels.find(function);
  if (found == Get().kernels.end()) return Result(hipErrorInvalidDeviceFunction);
  Kernel& kernel = found->second;
  const std::string target = FileOf(kernel.bundle) + " " + kernel.name;
  if (kernel.argument_bytes < 0) {
    const std::string bytes = Ask("size " + target);
    if (bytes.empty()) return hipSuccess;
    kernel.argument_bytes = std::stoi(bytes);
  }
  std::ostringstream question;
  question << "run " << target << ' ' << grid.x << ' ' << grid.y << ' ' << grid.z << ' ' << block.x
           << ' ' << shared << ' ';
  const auto* bytes = static_cast<const unsigned char*>(args[0]);
  for (int i = 0; i < kernel.argument_bytes; ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    question << kDigits[bytes[i] >> 4] << kDigits[bytes[i] & 15];
  }
  if (!Ask(question.str()).empty()) ++kernel.launches;
  return hipSuccess;
}

}  // extern "C"
