// Camera frames to the VAE encoder's input in one pass: letterboxed, composed, padded, normalised.
//
// Reference: motedge/runtime/policy/letterbox.py, views.py, resize.py and canvas.py, in numpy; motedge/runtime/kernels/yuv.py
// for NV12. Whole numbers throughout, so the results are the same bits. The geometry comes from the host as tables
// (motedge/runtime/kernels/ingest_plan.py); nothing of it is computed here.
#include <cstdint>

#include "interface.h"

namespace motedge {

enum Format { kRgb = 0, kBgr = 1, kNv12 = 2 };

// One camera, all int32; ingest_plan.py writes the fields in this order
struct View {
  // Blocks of the grid: the first one, and tiles side by side
  int first_block, tiles_across;
  // Where the camera lies in the composed image; halved: it is letterboxed to twice that size and averaged
  int region_top, region_left, region_rows, region_columns, halved;
  // What the letterboxed image has between its black borders
  int inner_top, inner_left, inner_rows, inner_columns;
  // The frame
  int rows, columns, pitch_bytes, chroma_offset_bytes, format;
  // Filters: where in `tables`, for each position first[], count[], then weights[tap][]
  int columns_filter, rows_filter;
  // Y'CbCr -> RGB in fixed point
  int luma_black, luma_gain, red_cr, green_cb, green_cr, blue_cb;
};
static_assert(sizeof(View) == 24 * 4, "the host writes rows of 24 int32");

constexpr int kTileColumns = 32;
// Pillow, Resample.c: 32 bits less 8 of the pixel and 2 of headroom
constexpr int kFilterBits = 22;
constexpr int kYuvBits = 20;

struct Rgb {
  int r, g, b;
};

__device__ __forceinline__ int clamp_byte(int value) { return min(max(value, 0), 255); }

template <int kFormat>
__device__ __forceinline__ Rgb pixel(const View& view, const uint8_t* __restrict__ frame, int row, int column) {
  if (kFormat == kNv12) {
    const uint8_t* chroma = frame + view.chroma_offset_bytes + (row >> 1) * view.pitch_bytes + (column & ~1);
    const int y = (frame[row * view.pitch_bytes + column] - view.luma_black) * view.luma_gain + (1 << (kYuvBits - 1));
    const int cb = chroma[0] - 128, cr = chroma[1] - 128;
    return {clamp_byte((y + view.red_cr * cr) >> kYuvBits),
            clamp_byte((y + view.green_cb * cb + view.green_cr * cr) >> kYuvBits),
            clamp_byte((y + view.blue_cb * cb) >> kYuvBits)};
  }
  const uint8_t* at = frame + row * view.pitch_bytes + 3 * column;
  return kFormat == kRgb ? Rgb{at[0], at[1], at[2]} : Rgb{at[2], at[1], at[0]};
}

// Filters rows first_row .. first_row + rows and columns first_column .. + columns (of the inner image) along the columns
// into narrow[rows][columns], packed as 0x00bbggrr. All threads of the block take part.
template <int kFormat>
__device__ void filter_columns(const View& view, const uint8_t* __restrict__ frame, const int* __restrict__ tables,
                               int first_row, int rows, int first_column, int columns, uint32_t* narrow) {
  const int* first = tables + view.columns_filter;
  const int* count = first + view.inner_columns;
  const int* weights = count + view.inner_columns;
  for (int c = threadIdx.x; c < columns; c += blockDim.x) {
    const int position = first_column + c;
    const int start = first[position], taps = count[position];
    for (int r = threadIdx.y; r < rows; r += blockDim.y) {
      Rgb total{1 << (kFilterBits - 1), 1 << (kFilterBits - 1), 1 << (kFilterBits - 1)};
      for (int tap = 0; tap < taps; ++tap) {
        const int weight = weights[tap * view.inner_columns + position];
        const Rgb value = pixel<kFormat>(view, frame, first_row + r, start + tap);
        total.r += value.r * weight;
        total.g += value.g * weight;
        total.b += value.b * weight;
      }
      narrow[r * columns + c] = clamp_byte(total.r >> kFilterBits) | clamp_byte(total.g >> kFilterBits) << 8 |
                                clamp_byte(total.b >> kFilterBits) << 16;
    }
  }
}

// One pixel of the letterboxed image; `narrow` starts at row first_row of the frame, its column is given
__device__ __forceinline__ Rgb filter_rows(const View& view, const int* __restrict__ tables, int position,
                                           const uint32_t* narrow, int first_row, int columns, int column) {
  const int* first = tables + view.rows_filter;
  const int* count = first + view.inner_rows;
  const int* weights = count + view.inner_rows;
  const uint32_t* at = narrow + (first[position] - first_row) * columns + column;
  Rgb total{1 << (kFilterBits - 1), 1 << (kFilterBits - 1), 1 << (kFilterBits - 1)};
  const int taps = count[position];
  for (int tap = 0; tap < taps; ++tap, at += columns) {
    const int weight = weights[tap * view.inner_rows + position];
    const uint32_t value = *at;
    total.r += int(value & 255u) * weight;
    total.g += int(value >> 8 & 255u) * weight;
    total.b += int(value >> 16) * weight;
  }
  return {clamp_byte(total.r >> kFilterBits), clamp_byte(total.g >> kFilterBits), clamp_byte(total.b >> kFilterBits)};
}

// The VAE's input, fp32 [3, canvas_rows, canvas_columns]; content lies at its upper left, the rest repeats it
struct Canvas {
  float* out;
  int rows, columns;
  int content_rows, content_columns;
  // Padding repeats the last row and column; otherwise it reflects without repeating them
  int repeat_edge;
};

// Positions of the padding that show `position`: the first one, and how many from there
__device__ __forceinline__ int padded_from(int position, int content, int canvas, int repeat_edge, int& count) {
  if (repeat_edge) {
    count = position == content - 1 ? canvas - content : 0;
    return content;
  }
  const int mirrored = 2 * (content - 1) - position;
  count = mirrored >= content && mirrored < canvas;
  return mirrored;
}

__device__ __forceinline__ float normalised(int value) { return __fsub_rn(__fdiv_rn(float(value), 127.5f), 1.f); }

// Writes a pixel of the content wherever the canvas shows it
__device__ void place(const Canvas& canvas, int row, int column, const Rgb& value) {
  const float r = normalised(value.r), g = normalised(value.g), b = normalised(value.b);
  const size_t plane = size_t(canvas.rows) * canvas.columns;
  int more_rows, more_columns;
  const int row_from = padded_from(row, canvas.content_rows, canvas.rows, canvas.repeat_edge, more_rows);
  const int column_from =
      padded_from(column, canvas.content_columns, canvas.columns, canvas.repeat_edge, more_columns);
  for (int i = 0; i <= more_rows; ++i) {
    const int y = i == 0 ? row : row_from + i - 1;
    for (int j = 0; j <= more_columns; ++j) {
      float* at = canvas.out + size_t(y) * canvas.columns + (j == 0 ? column : column_from + j - 1);
      at[0] = r;
      at[plane] = g;
      at[2 * plane] = b;
    }
  }
}

}  // namespace motedge

using namespace motedge;

// Up to three cameras -> the composed image, normalised onto `canvas` or, where canvas is null, as uint8 RGB into
// `composed` [content_rows, content_columns, 3]. frame_i: the pixels of views[i]; null: black.
// Grid: the tiles of all views one after the other. Block: 32 x rows of a tile. Shared: the largest tile's narrow image.
extern "C" __global__ void __launch_bounds__(256)
    motedge_ingest_cameras(const uint8_t* __restrict__ frame_0, const uint8_t* __restrict__ frame_1,
                           const uint8_t* __restrict__ frame_2, const View* __restrict__ views, int view_count,
                           const int* __restrict__ tables, uint8_t* __restrict__ composed, float* __restrict__ canvas,
                           int canvas_rows, int canvas_columns, int content_rows, int content_columns,
                           int repeat_edge) {
  extern __shared__ uint32_t narrow[];
  int index = 0;
  while (index + 1 < view_count && int(blockIdx.x) >= views[index + 1].first_block) ++index;
  const View& view = views[index];
  const uint8_t* frame = index == 0 ? frame_0 : index == 1 ? frame_1 : frame_2;
  const int tile = blockIdx.x - view.first_block;
  const int zoom = view.halved ? 2 : 1;
  const int tile_row = tile / view.tiles_across * blockDim.y;
  const int tile_column = tile % view.tiles_across * kTileColumns;

  // The tile's part of the inner image: rows [top, bottom), columns [left, right)
  const int top = max(tile_row * zoom - view.inner_top, 0);
  const int bottom = min((tile_row + int(blockDim.y)) * zoom - view.inner_top, view.inner_rows);
  const int left = max(tile_column * zoom - view.inner_left, 0);
  const int right = min((tile_column + kTileColumns) * zoom - view.inner_left, view.inner_columns);
  const bool visible = frame != nullptr && top < bottom && left < right;
  int first_row = 0;
  if (visible) {
    const int* first = tables + view.rows_filter;
    first_row = first[top];
    const int rows = first[bottom - 1] + first[view.inner_rows + bottom - 1] - first_row;
    if (view.format == kNv12) {
      filter_columns<kNv12>(view, frame, tables, first_row, rows, left, right - left, narrow);
    } else if (view.format == kRgb) {
      filter_columns<kRgb>(view, frame, tables, first_row, rows, left, right - left, narrow);
    } else {
      filter_columns<kBgr>(view, frame, tables, first_row, rows, left, right - left, narrow);
    }
  }
  __syncthreads();

  const int row = tile_row + threadIdx.y, column = tile_column + threadIdx.x;
  if (row >= view.region_rows || column >= view.region_columns) return;
  Rgb value{0, 0, 0};
  for (int dy = 0; dy < zoom; ++dy) {
    for (int dx = 0; dx < zoom; ++dx) {
      const int y = row * zoom + dy - view.inner_top, x = column * zoom + dx - view.inner_left;
      if (!visible || y < top || y >= bottom || x < left || x >= right) continue;
      const Rgb part = filter_rows(view, tables, y, narrow, first_row, right - left, x - left);
      value.r += part.r;
      value.g += part.g;
      value.b += part.b;
    }
  }
  if (view.halved) value = {value.r >> 2, value.g >> 2, value.b >> 2};
  const int y = view.region_top + row, x = view.region_left + column;
  if (canvas != nullptr) {
    place({canvas, canvas_rows, canvas_columns, content_rows, content_columns, repeat_edge}, y, x, value);
    return;
  }
  uint8_t* at = composed + (size_t(y) * content_columns + x) * 3;
  at[0] = uint8_t(value.r);
  at[1] = uint8_t(value.g);
  at[2] = uint8_t(value.b);
}

// uint8 RGB [rows, columns, 3] -> resized without antialiasing to the content's size, normalised onto the canvas.
// *_before, *_after, *_weight: for each row or column of the content, the two that are blended, and the share of the
// second; null where the sizes are the same. Grid and block: the content, 32 x 8 a block.
extern "C" __global__ void __launch_bounds__(256)
    motedge_ingest_image(const uint8_t* __restrict__ image, int pitch_bytes, const int* __restrict__ row_before,
                         const int* __restrict__ row_after, const float* __restrict__ row_weight,
                         const int* __restrict__ column_before, const int* __restrict__ column_after,
                         const float* __restrict__ column_weight, float* __restrict__ canvas, int canvas_rows,
                         int canvas_columns, int content_rows, int content_columns, int repeat_edge) {
  const int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= content_rows || column >= content_columns) return;
  int value[3];
  if (row_before == nullptr) {
    const uint8_t* at = image + size_t(row) * pitch_bytes + 3 * column;
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) value[channel] = at[channel];
  } else {
    const uint8_t* upper = image + size_t(row_before[row]) * pitch_bytes;
    const uint8_t* lower = image + size_t(row_after[row]) * pitch_bytes;
    const int before = 3 * column_before[column], after = 3 * column_after[column];
    const float right = column_weight[column], left = __fsub_rn(1.f, right);
    const float below = row_weight[row], above = __fsub_rn(1.f, below);
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
      const float first = __fmaf_rn(upper[before + channel], left, __fmul_rn(upper[after + channel], right));
      const float second = __fmaf_rn(lower[before + channel], left, __fmul_rn(lower[after + channel], right));
      value[channel] = int(__fmaf_rn(first, above, __fmul_rn(second, below)));
    }
  }
  const Canvas out{canvas, canvas_rows, canvas_columns, content_rows, content_columns, repeat_edge};
  place(out, row, column, {value[0], value[1], value[2]});
}
