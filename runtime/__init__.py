"""The device runtime: engines, schedules, the denoising loop and the policy above it. Neither torch nor CUDA."""
