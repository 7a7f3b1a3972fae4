// The solver's step on the device: guidance, UniPC, clean positions and the next timestep, one launch a step, in place.
//
// Reference: motedge/runtime/unipc.py, guidance.py and gen_state.py, in numpy. The same operations in the same order, each
// rounded to fp32 by itself (__fmul_rn and __fadd_rn are never contracted), so the results are the same bits.
// Layout of the vectors: motedge/runtime/device/layout.py, [vision C,T,h,w | gap | action A,Z | gap], all fp32, starts and
// length multiples of 64 elements. Gaps stay zero and are not looked at.
#include <cstdint>

#include "interface.h"

namespace motedge {

// One row of the table of steps; motedge/runtime/kernels/solver.py writes it. Unused factors are 0.
struct alignas(16) StepRow {
  float sigma;
  float scale;
  // Timestep that the engines read at this step
  float t;
  float unused_a;
  // Of x_k, c_{k-1}, m_k, m_{k-1}, m_{k-2}, m_{k-3}
  float correct[6];
  // Of c_k, m_k, m_{k-1}, m_{k-2}
  float predict[4];
  float unused_b[2];
};
static_assert(sizeof(StepRow) == 64, "the host writes rows of 16 floats");

// Bits of `terms`: which factors are not 0, so that what has none is not read, and nothing waits for the table to know
constexpr unsigned kCorrect = 1u, kPredict = 1u << 6, kKeepCorrected = 1u << 10, kKeepValue = 1u << 11;
// Bits of a finding
constexpr unsigned kCondNotFinite = 1u, kUncondNotFinite = 2u;

struct StateShape {
  int vision_count, frame, frames;
  int action_offset, action_count, channels, raw_dim;
  int size;
};

// What happens to an element. Moved by the solver; held at its clean value; unused channel, held at 0; gap.
enum Kind { kMoves, kClean, kUnused, kGap };

// The kinds of the elements base .. base + 3; base is a multiple of 4
__device__ __forceinline__ void kinds_of(const StateShape& shape, int base, const float* __restrict__ vision_noisy,
                                         const float* __restrict__ action_noisy, Kind kind[4]) {
  if (base < shape.vision_count) {
    int plane = base / shape.frame;
    int position = base - plane * shape.frame;
    int frame = plane % shape.frames;
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      kind[lane] = base + lane >= shape.vision_count ? kGap : vision_noisy[frame] == 0.f ? kClean : kMoves;
      if (++position == shape.frame) {
        position = 0;
        frame = frame + 1 == shape.frames ? 0 : frame + 1;
      }
    }
    return;
  }
  const int start = base - shape.action_offset;
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) {
    const int element = start + lane;
    kind[lane] = kGap;
    if (element >= 0 && element < shape.action_count) {
      const int row = element / shape.channels;
      const bool used = element - row * shape.channels < shape.raw_dim;
      kind[lane] = !used ? kUnused : action_noisy[row] == 0.f ? kClean : kMoves;
    }
  }
}

struct Four {
  float at[4];
};

__device__ __forceinline__ Four load(const float* vector, int base) {
  const float4 wide = *reinterpret_cast<const float4*>(vector + base);
  return {{wide.x, wide.y, wide.z, wide.w}};
}

__device__ __forceinline__ void store(float* vector, int base, const Four& value) {
  *reinterpret_cast<float4*>(vector + base) = make_float4(value.at[0], value.at[1], value.at[2], value.at[3]);
}

// sum + factor * term, or factor * term where there is no sum yet: two roundings, as numpy has them
__device__ __forceinline__ void add_term(Four& sum, bool& started, float factor, const Four& term) {
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) {
    const float product = __fmul_rn(term.at[lane], factor);
    sum.at[lane] = started ? __fadd_rn(sum.at[lane], product) : product;
  }
  started = true;
}

__device__ __forceinline__ bool not_finite(float value) {
  return (__float_as_uint(value) & 0x7f800000u) == 0x7f800000u;
}

}  // namespace motedge

using namespace motedge;

// state = noise, clean positions and unused channels filled in; gaps zeroed; findings zeroed; t of step 0.
// noise: fp32 [max(vision_count, action_count)]; both modalities start from its first number.
extern "C" __global__ void __launch_bounds__(256)
    motedge_solver_begin(float* __restrict__ state, const float* __restrict__ noise, const float* __restrict__ clean,
                         const float* __restrict__ vision_noisy, const float* __restrict__ action_noisy,
                         float* __restrict__ t, unsigned* __restrict__ findings, const StepRow* __restrict__ table,
                         int steps, int vision_count, int frame, int frames, int action_offset, int action_count,
                         int channels, int raw_dim, int size) {
  const StateShape shape{vision_count, frame, frames, action_offset, action_count, channels, raw_dim, size};
  if (blockIdx.x == 0) {
    for (int step = threadIdx.x; step < steps; step += blockDim.x) findings[step] = 0;
    if (threadIdx.x == 0) *t = table[0].t;
  }
  const int base = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (base >= size) return;
  Kind kind[4];
  kinds_of(shape, base, vision_noisy, action_noisy, kind);
  const int drawn = base < action_offset ? base : base - action_offset;
  Four value;
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) {
    value.at[lane] = kind[lane] == kMoves ? noise[drawn + lane] : kind[lane] == kClean ? clean[base + lane] : 0.f;
  }
  store(state, base, value);
}

// State of step k -> k + 1, from v_cond and, if `guided`, v_uncond; t of step k + 1; bits of findings[k].
// corrected: fp32 [size], c_{k-1}, replaced by c_k. history: fp32 [kept, size], m of step k in row k % kept.
// terms: the bits above. table: [steps].
extern "C" __global__ void __launch_bounds__(256)
    motedge_solver_step(float* __restrict__ state, const float* __restrict__ v_cond, const float* __restrict__ v_uncond,
                        const float* __restrict__ clean, const float* __restrict__ vision_noisy,
                        const float* __restrict__ action_noisy, float* __restrict__ t,
                        unsigned* __restrict__ findings, float* __restrict__ corrected, float* __restrict__ history,
                        const StepRow* __restrict__ table, int k, int steps, int guided, unsigned terms, int kept,
                        int vision_count, int frame, int frames, int action_offset, int action_count, int channels,
                        int raw_dim, int size) {
  const StateShape shape{vision_count, frame, frames, action_offset, action_count, channels, raw_dim, size};
  if (blockIdx.x == 0 && threadIdx.x == 0 && k + 1 < steps) *t = table[k + 1].t;
  const int base = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  unsigned finding = 0;
  if (base < size) {
    // Everything that is read is asked for before anything is computed
    const Four x = load(state, base);
    Four v = load(v_cond, base);
    Four u{}, c{}, m[4] = {};
    if (guided) u = load(v_uncond, base);
    if (terms & (kCorrect << 1)) c = load(corrected, base);
#pragma unroll
    for (int back = 1; back < 4; ++back) {
      const unsigned used = (kCorrect << (2 + back)) | (back < 3 ? kPredict << (1 + back) : 0u);
      if (terms & used) m[back] = load(history + size_t((k - back) % kept) * size, base);
    }
    const StepRow row = table[k];
    Kind kind[4];
    kinds_of(shape, base, vision_noisy, action_noisy, kind);

#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      if (kind[lane] == kGap) continue;
      if (not_finite(v.at[lane])) finding |= kCondNotFinite;
      if (guided && not_finite(u.at[lane])) finding |= kUncondNotFinite;
    }
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      if (guided) {
        const float difference = __fmul_rn(__fsub_rn(v.at[lane], u.at[lane]), row.scale);
        v.at[lane] = __fadd_rn(difference, u.at[lane]);
      }
      m[0].at[lane] = __fsub_rn(x.at[lane], __fmul_rn(v.at[lane], row.sigma));
    }
    Four sum{}, next{};
    bool started = false;
    if (terms & kCorrect) add_term(sum, started, row.correct[0], x);
    if (terms & (kCorrect << 1)) add_term(sum, started, row.correct[1], c);
#pragma unroll
    for (int back = 0; back < 4; ++back) {
      if (terms & (kCorrect << (2 + back))) add_term(sum, started, row.correct[2 + back], m[back]);
    }
    started = false;
    if (terms & kPredict) add_term(next, started, row.predict[0], sum);
#pragma unroll
    for (int back = 0; back < 3; ++back) {
      if (terms & (kPredict << (1 + back))) add_term(next, started, row.predict[1 + back], m[back]);
    }
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      if (kind[lane] == kClean) next.at[lane] = clean[base + lane];
      if (kind[lane] == kUnused || kind[lane] == kGap) next.at[lane] = 0.f;
    }
    store(state, base, next);
    if (terms & kKeepCorrected) store(corrected, base, sum);
    if (terms & kKeepValue) store(history + size_t(k % kept) * size, base, m[0]);
  }
  finding = __reduce_or_sync(0xffffffffu, finding);
  if (finding != 0 && (threadIdx.x & 31) == 0) atomicOr(findings + k, finding);
}
