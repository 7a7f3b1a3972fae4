"""How far a quantized model lies from the original, on observations that calibration did not see."""
