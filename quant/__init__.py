"""Quantization: recipes, calibration with ModelOpt, Q/DQ emission, fidelity, sensitivity."""
