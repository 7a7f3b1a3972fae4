"""The arithmetic of each format, in torch: quantized values, their scales, and what they stand for."""
