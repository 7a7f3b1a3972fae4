// Runs the kernels of ../../../kernels on the host: g++ -include cuda_words.h, without contraction.
#include <algorithm>
#include <cstddef>
#include <tuple>
#include <utility>
#include <vector>

// The kernel's `extern __shared__` array, and words behind it that must stay as they are
constexpr int kSharedWords = (48 << 10) / 4, kGuardWords = 1024;
uint32_t narrow[kSharedWords + kGuardWords];

#include "../../../kernels/motedge_kernels.cu"

namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr uint32_t kGuard = 0xdeadbeefu;

struct Thread {
  ucontext_t context;
  bool finished;
};

std::vector<Thread> threads;
std::vector<char> stacks;
ucontext_t scheduler;
Thread* running;
unsigned warp_bits[32];
void (*body)(void*);
void* body_data;

void run_thread() {
  body(body_data);
  running->finished = true;
  swapcontext(&running->context, &scheduler);
}

void run_block() {
  std::fill(std::begin(warp_bits), std::end(warp_bits), 0u);
  for (size_t i = 0; i < threads.size(); ++i) {
    getcontext(&threads[i].context);
    threads[i].context.uc_stack.ss_sp = stacks.data() + i * kStackBytes;
    threads[i].context.uc_stack.ss_size = kStackBytes;
    threads[i].context.uc_link = nullptr;
    threads[i].finished = false;
    makecontext(&threads[i].context, run_thread, 0);
  }
  for (bool left = true; left;) {
    left = false;
    for (size_t i = 0; i < threads.size(); ++i) {
      if (threads[i].finished) continue;
      running = &threads[i];
      threadIdx = {unsigned(i) % blockDim.x, unsigned(i) / blockDim.x, 0};
      swapcontext(&scheduler, &threads[i].context);
      left = true;
    }
  }
}

template <class... A, size_t... I>
int launch(void (*kernel)(A...), void** arguments, const int* grid, const int* block, int shared_bytes,
           std::index_sequence<I...>) {
  auto call = [&] { kernel(*static_cast<A*>(arguments[I])...); };
  body = [](void* data) { (*static_cast<decltype(call)*>(data))(); };
  body_data = &call;
  blockDim = {unsigned(block[0]), unsigned(block[1]), 1};
  threads.resize(size_t(block[0]) * block[1]);
  stacks.resize(threads.size() * kStackBytes);
  uint32_t* end = narrow + (shared_bytes + 3) / 4;
  for (int y = 0; y < grid[1]; ++y) {
    for (int x = 0; x < grid[0]; ++x) {
      std::fill(std::begin(narrow), std::end(narrow), kGuard);
      blockIdx = {unsigned(x), unsigned(y), 0};
      run_block();
      if (std::any_of(end, std::end(narrow), [](uint32_t word) { return word != kGuard; })) return 1;
    }
  }
  return 0;
}

template <class... A>
int launch(void (*kernel)(A...), void** arguments, const int* grid, const int* block, int shared_bytes, int count) {
  if (count != int(sizeof...(A))) return 2;
  return launch(kernel, arguments, grid, block, shared_bytes, std::index_sequence_for<A...>{});
}

}  // namespace

void __syncthreads() {
  const uint3 self = threadIdx;
  swapcontext(&running->context, &scheduler);
  threadIdx = self;
}

unsigned __reduce_or_sync(unsigned, unsigned value) {
  const unsigned warp = (threadIdx.y * blockDim.x + threadIdx.x) / 32;
  warp_bits[warp] |= value;
  __syncthreads();
  return warp_bits[warp];
}

// 0; 1: wrote beyond its shared memory; 2: another number of arguments
#define RUN(name)                                                                                             \
  extern "C" int run_##name(void** arguments, int count, const int* grid, const int* block, int shared_bytes) { \
    return launch(name, arguments, grid, block, shared_bytes, count);                                         \
  }
RUN(motedge_solver_begin)
RUN(motedge_solver_step)
RUN(motedge_ingest_cameras)
RUN(motedge_ingest_image)
