"""The denoising loop on a GPU: state, engines and solver in device memory, one CUDA graph a tick."""
