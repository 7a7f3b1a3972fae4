"""Statistics of activations, from real observations through the real denoising loop."""
